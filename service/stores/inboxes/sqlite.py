"""Remembered queries as rows of the SQLite store's file."""

from collections.abc import Callable, Sequence
from sqlite3 import Connection
from typing import Protocol, TypeVar

from service.stores.inboxes import kept
from service.stores.inboxes.kept import Bounds, Remembered
from service.stores.sqlite_file import SqliteFile
from service.stores.sqlite_tasks import first

Result = TypeVar("Result")

_HERE = "task_id = ? AND query_id = ?"


class Run(Protocol):
    """Does blocking work in a thread of the store, to its end."""

    async def __call__(self, work: Callable[[], Result], /) -> Result:
        """Return its result."""
        ...


class SqliteInbox:
    """An `InboxStore` in one file.

    Args:
        file: The file.
        now: The clock, unix time.
        read: Runs what reads.
        change: Runs what writes.
    """

    def __init__(self, file: SqliteFile, now: Callable[[], float], read: Run, change: Run) -> None:
        self._file = file
        self._now = now
        self._read = read
        self._change = change

    async def add(
        self, task_id: str, query: Remembered, pictures: Sequence[bytes], bounds: Bounds
    ) -> bool:
        """Keep a query, and drop what is over the bounds."""
        about = kept.seal_query(task_id, query)
        packed = kept.seal_pictures(task_id, query.query_id, pictures)
        row = (task_id, query.query_id, query.at, query.until, query.size, about, packed)

        def add() -> bool:
            with self._file.writing(len(about) + len(packed), durable=False) as db:
                alive = (
                    "SELECT 1 FROM tasks WHERE task_id = ?"
                    " AND (expires_at IS NULL OR expires_at > ?)"
                )
                if first(db, alive, task_id, self._now()) is None:
                    return False
                db.execute("INSERT INTO inbox VALUES (?, ?, ?, ?, ?, ?, ?)", row)
                self._bound(db, task_id, bounds)
                query_here = f"SELECT 1 FROM inbox WHERE {_HERE}"
                return first(db, query_here, task_id, query.query_id) is not None

        return await self._change(add)

    async def list(self, task_id: str) -> list[Remembered]:
        """Return the queries of a task that are in their time."""

        def read() -> list[Remembered]:
            with self._file.reading() as db:
                query = "SELECT query_id, about FROM inbox WHERE task_id = ?"
                rows = db.execute(query, (task_id,)).fetchall()
            return kept.in_time(task_id, rows, self._now())

        return await self._read(read)

    async def get(self, task_id: str, query_id: str) -> tuple[Remembered, tuple[bytes, ...]] | None:
        """Return a query and its pictures."""

        def read() -> tuple[Remembered, tuple[bytes, ...]] | None:
            with self._file.reading() as db:
                query = f"SELECT about, packed FROM inbox WHERE {_HERE}"
                row = first(db, query, task_id, query_id)
            if row is None:
                return None
            found = kept.read_query(task_id, query_id, row[0])
            if found.until <= self._now():
                return None
            return found, kept.read_pictures(task_id, query_id, row[1])

        return await self._read(read)

    async def remove(self, task_id: str, query_id: str) -> bool:
        """Drop a query."""

        def remove() -> bool:
            with self._file.writing() as db:
                query = f"DELETE FROM inbox WHERE {_HERE}"
                return db.execute(query, (task_id, query_id)).rowcount > 0

        return await self._change(remove)

    def sweep(self, now: float) -> None:
        """Drop what is over its time; called by the thread that writes."""
        with self._file.writing() as db:
            db.execute("DELETE FROM inbox WHERE until <= ?", (now,))

    def _bound(self, db: Connection, task_id: str, bounds: Bounds) -> None:
        db.execute("DELETE FROM inbox WHERE task_id = ? AND until <= ?", (task_id, self._now()))
        query = "SELECT query_id, size FROM inbox WHERE task_id = ? ORDER BY at DESC, query_id DESC"
        held, gone = 0, []
        for count, (query_id, size) in enumerate(db.execute(query, (task_id,)).fetchall()):
            held += size
            if count >= bounds.keep or held > bounds.bytes:
                gone.append((task_id, query_id))
        db.executemany(f"DELETE FROM inbox WHERE {_HERE}", gone)
