"""Where keys are kept: in the store that has the tasks, SQLite or Redis."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, TypeVar, cast

from service.keys import key
from service.keys.key import KeyRecord
from service.stores import sealing
from service.stores.errors import StoreUnavailableError
from service.stores.opening import REDIS_SCHEMES, open_store
from service.stores.redis import RedisUrl, connect, translated
from service.stores.redis_commit import Commits, Durability, durability_of

Result = TypeVar("Result")

BUSY_S = 5.0
TABLE = "keys (key_id TEXT PRIMARY KEY, record)"
# KEYS: of keys
# ARGV: id, sealed record
PUT = "redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) return 'done'"


async def beside(path: Path, table: str, work: Callable[[sqlite3.Connection], Result]) -> Result:
    """Do something with the file of an embedded store, whether or not a service runs on it.

    Args:
        path: The file, which is there.
        table: Is made where it is not.
        work: Gets a connection of its own.

    Raises:
        StoreUnavailableError: The file does not let itself be used.
    """

    def guarded() -> Result:
        address = f"{path.expanduser().resolve().as_uri()}?mode=rw"  # it is made by the store alone
        try:
            with contextlib.closing(
                sqlite3.connect(address, uri=True, timeout=BUSY_S, isolation_level=None)
            ) as db:
                db.execute("PRAGMA synchronous=FULL")
                db.execute("PRAGMA secure_delete=FAST")
                db.execute(f"CREATE TABLE IF NOT EXISTS {table}")
                return work(db)
        except sqlite3.Error as error:
            raise StoreUnavailableError(
                "The file of the store cannot be used beside a service; repeat this once the "
                "operator has seen to it."
            ) from error

    return await asyncio.shield(asyncio.to_thread(guarded))


class KeyStore(Protocol):
    """Keeps keys; every method may raise `StoreUnavailableError` or `StoreCorruptError`."""

    async def get(self, key_id: str) -> KeyRecord | None:
        """Return a key, also a revoked one."""
        ...

    async def put(self, record: KeyRecord) -> None:
        """Keep a key in the place of the one with its id; durable when this returns."""
        ...

    async def list(self) -> Sequence[KeyRecord]:
        """Return all keys, oldest first."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class SqliteKeys:
    """A table in the file of the embedded store.

    Each operation has a connection of its own, so that keys are made and revoked beside a running
    service, which locks the file against other services and not against this.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    async def get(self, key_id: str) -> KeyRecord | None:
        """Return a key."""

        def work(db: sqlite3.Connection) -> list[tuple[str, bytes]]:
            query = "SELECT key_id, record FROM keys WHERE key_id = ?"
            return db.execute(query, (key_id,)).fetchall()

        rows = await self._run(work)
        return _read(*rows[0]) if rows else None

    async def put(self, record: KeyRecord) -> None:
        """Keep a key."""

        def work(db: sqlite3.Connection) -> None:
            row = (record.key_id, _sealed(record))
            db.execute("INSERT OR REPLACE INTO keys VALUES (?, ?)", row)

        await self._run(work)

    async def list(self) -> Sequence[KeyRecord]:
        """Return all keys."""

        def work(db: sqlite3.Connection) -> list[tuple[str, bytes]]:
            return db.execute("SELECT key_id, record FROM keys").fetchall()

        return _in_order(_read(*row) for row in await self._run(work))

    async def close(self) -> None:
        """Nothing is held between two operations."""

    async def _run(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        return await beside(self._path, TABLE, work)


class RedisKeys:
    """A hash beside the tasks: sealed records by id."""

    def __init__(self, url: str) -> None:
        options = RedisUrl.parse(url)
        self._durable = options.durable
        self._client = connect(options)
        self._key = f"{options.prefix}:keys"

    async def get(self, key_id: str) -> KeyRecord | None:
        """Return a key."""
        with translated():
            # as RedisStore does: a cancelled command would leave its reply to the next caller
            found = await asyncio.shield(self._get(key_id))
        return None if found is None else _read(key_id, found)

    async def put(self, record: KeyRecord) -> None:
        """Keep a key."""
        with translated():
            durability = await durability_of(self._client) if self._durable else Durability.NONE
            await Commits(self._client, durability).run(
                PUT, [self._key], [record.key_id, _sealed(record)]
            )

    async def list(self) -> Sequence[KeyRecord]:
        """Return all keys."""
        with translated():
            found = cast("dict[bytes, bytes]", await self._client.hgetall(self._key))
        return _in_order(_read(key_id.decode(), sealed) for key_id, sealed in found.items())

    async def close(self) -> None:
        """Let go of the connections."""
        await self._client.aclose()

    async def _get(self, key_id: str) -> bytes | None:
        return cast("bytes | None", await self._client.hget(self._key, key_id))


def open_keys(url: str) -> KeyStore:
    """Return the keys of a store that is there."""
    if url.startswith(REDIS_SCHEMES):
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


def _sealed(record: KeyRecord) -> bytes:
    return sealing.seal(f"key/{record.key_id}", key.to_json(record))


def _read(key_id: str, sealed: bytes) -> KeyRecord:
    return key.from_json(bytes(sealing.unseal(f"key/{key_id}", sealed)))


def _in_order(records: Iterator[KeyRecord]) -> list[KeyRecord]:
    return sorted(records, key=lambda record: (record.created_at, record.key_id))
