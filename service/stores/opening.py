"""From the setting KSHOT_STORE to an open store."""

from pathlib import Path

from service.stores.errors import StoreUnavailableError
from service.stores.protocol import TaskStore
from service.stores.sqlite import SqliteStore

REDIS_SCHEMES = ("redis://", "rediss://", "unix://")


async def open_store(url: str) -> TaskStore:
    """Open the store that a URL names.

    Args:
        url: `sqlite:PATH`; or `redis://`, `rediss://` or `unix://` as redis-py reads them, with
            `?durability=none` to accept that acknowledged tasks may be lost, and `?prefix=NAME`
            to share one Redis between installations.

    Raises:
        StoreUnavailableError: no such kind of store, or it cannot be used as it is.
        StoreCorruptError: the file is torn, no store of kshot's, or from a newer version.
    """
    scheme, _, path = url.partition(":")
    if scheme == "sqlite" and path:
        return await SqliteStore.open(Path(path))
    if url.startswith(REDIS_SCHEMES):
        from service.stores.redis import RedisStore  # its client takes half a second

        return await RedisStore.open(url)
    if scheme == "dir":
        raise StoreUnavailableError(
            "Folder stores (dir:PATH) were replaced by SQLite; set KSHOT_STORE=sqlite:PATH, for "
            "instance sqlite:.kshot/kshot.db, and register the tasks of the folder again."
        )
    raise StoreUnavailableError(
        f"There is no store of the kind {scheme[:20]!r}; "
        "use sqlite:PATH, redis://, rediss:// or unix://."
    )
