"""What is told before torch is imported or a model is loaded, which takes many seconds.

An operator who mistyped an address should read so at once.
"""

import asyncio
import re
import socket

from service.errors import SettingsError
from service.keys.ring import ring_of
from service.settings import Settings
from service.stores.errors import StoreError, StoreUnavailableError
from service.stores.opening import open_store

STORE_S = 1.0  # with the second that the imports take, an answer comes within two


def bound_socket(settings: Settings) -> socket.socket:
    """Take the port; nobody can connect before the server listens.

    Raises:
        SettingsError: It is taken, or the address is none of this machine's.
    """
    host, port = settings.host, settings.port
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
        except OSError:
            bound.close()
            raise
    except OSError as error:
        raise SettingsError(
            f"Port {port} of {host} cannot be had ({error.strerror}); stop what listens there, or "
            "set KSHOT_HOST and KSHOT_PORT to a free one."
        ) from error
    return bound


def check_store(settings: Settings) -> None:
    """Open the store, look whether it has keys where it must, and close it again.

    Raises:
        StoreError: It cannot be used, or does not answer within `STORE_S`.
        SettingsError: It has no API key, and others than this machine could ask.
    """
    shown = re.sub(r"//[^@/\s]*@", "//***@", settings.store)
    try:
        asyncio.run(_opened_and_closed(settings))
    except TimeoutError:
        raise StoreUnavailableError(
            f"KSHOT_STORE={shown}: nobody answered within {STORE_S:g} s; "
            "start the store, or correct the address."
        ) from None
    except StoreError as error:
        if settings.store.startswith("sqlite:"):  # it names its file itself
            raise
        if error.__cause__ is None:
            raise type(error)(f"KSHOT_STORE={shown}: {error}") from error
        reason = str(error.__cause__).rstrip(".")
        raise StoreUnavailableError(
            f"KSHOT_STORE={shown}: {reason}; start the store, or correct the address."
        ) from error


async def _opened_and_closed(settings: Settings) -> None:
    local = settings.store.startswith(
        "sqlite:"
    )  # its disk may be slow, and nobody else must answer
    async with asyncio.timeout(None if local else STORE_S):
        store = await open_store(settings.store)
    try:
        ring = await ring_of(settings)
    finally:
        await store.close()
    if ring is not None:
        await ring.close()
