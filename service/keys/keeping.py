"""Where keys are kept: in the store that has the tasks, SQLite or Redis."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from service.keys import key
from service.keys.key import KeyRecord
from service.stores import sealing
from service.stores.errors import StoreUnavailableError

Result = TypeVar("Result")

BUSY_S = 5.0
TABLE = "keys (key_id TEXT PRIMARY KEY, record)"


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
        return opened(*rows[0]) if rows else None

    async def put(self, record: KeyRecord) -> None:
        """Keep a key."""

        def work(db: sqlite3.Connection) -> None:
            row = (record.key_id, sealed(record))
            db.execute("INSERT OR REPLACE INTO keys VALUES (?, ?)", row)

        await self._run(work)

    async def list(self) -> Sequence[KeyRecord]:
        """Return all keys."""

        def work(db: sqlite3.Connection) -> list[tuple[str, bytes]]:
            return db.execute("SELECT key_id, record FROM keys").fetchall()

        return in_order(opened(*row) for row in await self._run(work))

    async def close(self) -> None:
        """Nothing is held between two operations."""

    async def _run(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        return await beside(self._path, TABLE, work)


def sealed(record: KeyRecord) -> bytes:
    """Return a key as it is stored."""
    return sealing.seal(f"key/{record.key_id}", key.to_json(record))


def opened(key_id: str, stored: bytes) -> KeyRecord:
    """Return a key that was stored.

    Raises:
        StoreCorruptError: It is not what was stored.
    """
    return key.from_json(bytes(sealing.unseal(f"key/{key_id}", stored)))


def in_order(records: Iterator[KeyRecord]) -> list[KeyRecord]:
    """Return them oldest first."""
    return sorted(records, key=lambda record: (record.created_at, record.key_id))
