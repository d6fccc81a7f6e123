"""From the setting KSHOT_STORE to the keys and limits beside its tasks."""

from pathlib import Path

from service.keys.grants import Grants, SqliteGrants
from service.keys.keeping import KeyStore, SqliteKeys
from service.stores.errors import StoreUnavailableError
from service.stores.opening import REDIS_SCHEMES, open_store


def open_keys(url: str) -> KeyStore:
    """Return the keys of a store that is there."""
    if url.startswith(REDIS_SCHEMES):
        from service.keys.redis import RedisKeys  # with the client of Redis

        return RedisKeys(url)
    return SqliteKeys(Path(url.partition(":")[2]))


async def make_sure_of(url: str) -> None:
    """Make the store where there is none yet, unless a running service has it.

    Raises:
        StoreError: It cannot be used.
    """
    try:
        store = await open_store(url)
    except StoreUnavailableError as error:
        if isinstance(error.__cause__, BlockingIOError):
            return
        raise
    await store.close()


def open_grants(url: str) -> Grants:
    """Return the limits that a store keeps, which is there."""
    if url.startswith(REDIS_SCHEMES):
        from service.keys.redis import RedisGrants  # with the client of Redis

        return RedisGrants(url)
    return SqliteGrants(Path(url.partition(":")[2]))
