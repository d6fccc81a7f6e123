"""From the setting KSHOT_STORE to an open store."""

from pathlib import Path

from service.stores.directory import DirectoryStore
from service.stores.errors import StoreUnavailableError
from service.stores.protocol import TaskStore
from service.stores.redis import RedisStore

REDIS_SCHEMES = ("redis://", "rediss://", "unix://")


async def open_store(url: str) -> TaskStore:
    """Open the store that a URL names.

    Args:
        url: `dir:PATH`; or `redis://`, `rediss://` or `unix://` as redis-py reads them, with
            `?durability=none` to accept that acknowledged tasks may be lost, and `?prefix=NAME`
            to share one Redis between installations.

    Raises:
        StoreUnavailableError: no such kind of store, or it cannot be used as it is.
    """
    if url.startswith("dir:") and url != "dir:":
        return await DirectoryStore.open(Path(url.removeprefix("dir:")))
    if url.startswith(REDIS_SCHEMES):
        return await RedisStore.open(url)
    scheme = url.partition(":")[0][:20]
    raise StoreUnavailableError(
        f"There is no store of the kind {scheme!r}; use dir:PATH, redis://, rediss:// or unix://."
    )
