"""When a service begins to count what its tenants use: at its start, or with the first quota."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from service.background import spawn, until
from service.settings import Settings
from service.stores.protocol import TaskStore
from service.stores.quotas.kept import Quotas
from service.tasks.quota.keeper import Keeper

LOOK_S = 2.0  # between two looks of a service without quotas for the first one

log = logging.getLogger("kshot.service")


def usual_of(settings: Settings) -> Quotas:
    """Read off the settings the quotas of tenants that have none of their own."""
    seconds = settings.quota_clip_seconds
    return Quotas(
        tasks=settings.quota_tasks,
        bytes=settings.quota_bytes,
        clip_ms=None if seconds is None else round(1e3 * seconds),
        frames=settings.quota_frames,
    )


@asynccontextmanager
async def keeper_until(store: TaskStore, settings: Settings) -> AsyncIterator[Keeper]:
    """Make what charges requests, from when there is a quota; until then the store is not asked."""
    keeper = Keeper(store.quotas, usual_of(settings))

    def begin(looked: "asyncio.Task[None]") -> None:
        if not looked.cancelled():
            keeper.on = True
            log.info("There are quotas now: requests are charged")

    async def reckoned() -> bool:
        await keeper.store.reckon()
        return True

    keeper.on = keeper.on or await store.limited()
    reckoning = spawn(until(reckoned, LOOK_S))
    if keeper.on:  # a limit that does not know of a tenant's tasks would let in too many
        await reckoning
    looking = None if keeper.on else spawn(until(store.limited, LOOK_S))
    if looking is not None:
        looking.add_done_callback(begin)
    try:
        yield keeper
    finally:
        for work in (reckoning, looking):
            if work is not None:
                work.cancel()
        await keeper.close()
