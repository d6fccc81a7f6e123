"""When a service begins to ask for keys: at its start, or when the first one is made."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Protocol

from service.background import spawn, until
from service.keys.opening import open_keys
from service.keys.ring import KeyRing, ring_of
from service.settings import Settings
from service.stores.protocol import TaskStore

LOOK_S = 2.0  # between two looks of an open service for the first key

log = logging.getLogger("kshot.service")


class Lockable(Protocol):
    """What asks for keys from some moment on."""

    settings: Settings
    store: TaskStore
    ring: KeyRing | None


async def keys_until(stack: AsyncExitStack, settings: Settings) -> KeyRing | None:
    """Open the keys, where callers need one, for as long as the stack stands."""
    ring = await ring_of(settings)
    if ring is not None:
        stack.push_async_callback(ring.close)
    return ring


@asynccontextmanager
async def locked_when_keyed(service: Lockable) -> AsyncIterator[None]:
    """Have an open service ask for keys from when the first one is made, and ever after."""

    def lock(looked: "asyncio.Task[None]") -> None:
        if not looked.cancelled():
            service.ring = KeyRing(open_keys(service.settings.store))
            log.info("The first API key was made: callers need one now")

    if service.ring is not None:
        yield
        return
    looking = spawn(until(service.store.keyed, LOOK_S))
    looking.add_done_callback(lock)
    try:
        yield
    finally:
        looking.cancel()
        if service.ring is not None:
            await service.ring.close()
