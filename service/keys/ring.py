"""The keys of a running service: who sends a request, and who has guessed too often."""

import asyncio
import ipaddress
import logging
import socket
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from service.errors import SettingsError
from service.keys.errors import KeyInvalidError, KeyMissingError, TooManyFailuresError
from service.keys.keeping import KeyStore
from service.keys.key import TOKEN, Caller, KeyRecord, proves
from service.keys.opening import open_keys
from service.settings import Settings
from service.stores.errors import StoreUnavailableError

FRESH_S = 2.0  # a key that is revoked or rotated opens nothing after that
PATIENCE_S = 1.0  # with a store that hangs, where the key is known
REMEMBERED = 1000  # keys
MOST_FAILURES = 20  # of an address, in `WINDOW_S`
WINDOW_S = 60.0
ADDRESSES = 4096

log = logging.getLogger("kshot.service")


class Failures:
    """Counts wrong keys by address; what it remembers is bounded."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seen: OrderedDict[str, tuple[int, float]] = OrderedDict()  # how many, since when

    def __len__(self) -> int:
        return len(self._seen)

    def note(self, address: str) -> None:
        """Count one more."""
        count, since = self._lately(address)
        self._seen[address] = (count + 1, since)
        self._seen.move_to_end(address)
        while len(self._seen) > ADDRESSES:
            self._seen.popitem(last=False)

    def wait_s(self, address: str) -> float:
        """Tell how long this address has to wait; 0 where it has not."""
        count, since = self._lately(address)
        return max(0.0, since + WINDOW_S - self._clock()) if count >= MOST_FAILURES else 0.0

    def _lately(self, address: str) -> tuple[int, float]:
        now = self._clock()
        count, since = self._seen.get(address, (0, now))
        return (0, now) if now - since >= WINDOW_S else (count, since)


class KeyRing:
    """Finds the caller of a request by its key.

    A key that is remembered stands in while the store is away, as tasks do.

    Args:
        store: Has the keys.
        clock: Seconds.
    """

    def __init__(self, store: KeyStore, clock: Callable[[], float] = time.monotonic) -> None:
        self.store = store
        self.failures = Failures(clock)
        self._clock = clock
        self._known: OrderedDict[str, tuple[KeyRecord, float]] = OrderedDict()  # fresh until then

    async def caller(self, sent: Sequence[str], address: str) -> Caller:
        """Return who sends a request.

        Args:
            sent: Its Authorization headers.
            address: Where it comes from.

        Raises:
            KeyMissingError, KeyInvalidError: It has no key that opens anything.
            TooManyFailuresError: The address sent too many wrong ones.
            StoreError: It cannot be told now.
        """
        if not sent:
            raise KeyMissingError(
                "This service asks for an API key; send 'Authorization: Bearer kshot_...'."
            )
        scheme, _, token = sent[0].strip().partition(" ")
        found = TOKEN.fullmatch(token.strip()) if scheme.lower() == "bearer" else None
        key_id, secret = found.groups() if found and len(sent) == 1 else ("", "")
        if wait_s := self.failures.wait_s(address):
            known = self._known.get(key_id)
            if known is None or not proves(known[0], secret):  # nothing is asked of the store
                raise TooManyFailuresError(
                    "Too many wrong API keys came from this address; wait, and send the right one.",
                    retry_after_s=wait_s,
                )
        record = await self._record(key_id) if key_id else None
        if not proves(record, secret):
            self.failures.note(address)
            raise KeyInvalidError(
                "The API key is not valid here; send one key that was made for this service and "
                "is not revoked, as 'Authorization: Bearer kshot_...'."
            )
        assert record is not None
        return record.caller()

    async def close(self) -> None:
        """Let go of the store."""
        await self.store.close()

    async def _record(self, key_id: str) -> KeyRecord | None:
        known, fresh_until = self._known.get(key_id, (None, 0.0))
        if known is not None and self._clock() < fresh_until:
            return known
        try:
            async with asyncio.timeout(None if known is None else PATIENCE_S):
                record = await self.store.get(key_id)
        except (TimeoutError, StoreUnavailableError):
            if known is None:
                raise
            record = known
        if record is None:
            self._known.pop(key_id, None)
            return None
        self._known[key_id] = (record, self._clock() + FRESH_S)
        self._known.move_to_end(key_id)
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return record


async def ring_of(settings: Settings) -> KeyRing | None:
    """Return what asks callers for keys; None where there is no key, and none is needed.

    Raises:
        SettingsError: There is no key, and others than this machine could ask.
        StoreError: The store cannot say whether there is one.
    """
    keys = open_keys(settings.store)
    try:
        configured = bool(await keys.list())  # also a revoked one: the last must not open all
    except BaseException:
        await keys.close()
        raise
    if configured:
        return KeyRing(keys)
    await keys.close()
    if not await asyncio.to_thread(is_loopback, settings.host):
        if not settings.open:
            raise SettingsError(
                f"KSHOT_HOST is {settings.host!r} and there is no API key, so that anybody could "
                "use this service; make a key with `python -m service.admin keys make --name ME`, "
                "or set KSHOT_OPEN=1 to let everybody in."
            )
        log.warning("KSHOT_OPEN is set and there is no API key: whoever reaches it is let in")
    return None


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches an address."""
    try:
        found = socket.getaddrinfo(
            host or None, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError:
        return False
    addresses = [str(address[0]).partition("%")[0] for *_, address in found]
    return bool(addresses) and all(ipaddress.ip_address(one).is_loopback for one in addresses)
