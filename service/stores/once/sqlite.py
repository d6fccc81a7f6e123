"""Requests that may be sent again, as rows of the SQLite store's file.

No row waits for the disk: the log keeps the order of writes, so a task that is safe makes all
before it safe. One process has the file, so it remembers by itself what it is doing.
"""

import asyncio
from collections.abc import Callable
from sqlite3 import Connection

from service.background import spawn
from service.stores.inboxes.sqlite import Run
from service.stores.once import kept
from service.stores.once.kept import Standing
from service.stores.sqlite_file import SqliteFile
from service.stores.sqlite_tasks import first

ROW_BYTES = 512  # about


class SqliteOnce:
    """A `OnceStore` in one file.

    Args:
        file: The file.
        now: The clock, unix time.
        read: Runs what reads.
        change: Runs what writes, one at a time.
    """

    def __init__(self, file: SqliteFile, now: Callable[[], float], read: Run, change: Run) -> None:
        self._file = file
        self._now = now
        self._read = read
        self._change = change
        self._held: set[str] = set()

    async def begin(self, name: str, fingerprint: str, seed: str, *, keep_s: float) -> Standing:
        """Reserve a request, or say how it stands."""

        def begin() -> Standing:
            with self._file.writing(ROW_BYTES, durable=False) as db:
                found = self._begun(db, name, fingerprint, seed, keep_s)
            if found.mine:
                self._held.add(name)
            return found

        asking = spawn(self._change(begin))
        try:
            return await asyncio.shield(asking)
        except asyncio.CancelledError:  # the caller is gone and will not say how it ended
            asking.add_done_callback(lambda done: self._give_up(name, done))
            raise

    async def finish(self, name: str, task_id: str, answer: bytes, *, keep_s: float) -> None:
        """Keep an answer."""
        sealed, until = kept.seal_answer(name, task_id, answer), self._now() + keep_s

        def finish() -> None:
            with self._file.writing(len(sealed), durable=False) as db:
                db.execute("UPDATE once SET done = 1, until = ? WHERE name = ?", (until, name))
                db.execute(
                    "INSERT OR REPLACE INTO answers SELECT task_id, ?, ?, ? FROM tasks"
                    " WHERE task_id = ?",
                    (name, until, sealed, task_id),
                )

        try:
            await self._change(finish)
        finally:
            self._held.discard(name)

    async def leave(self, name: str, *, forget: bool) -> None:
        """End a reservation."""

        def leave() -> None:
            try:
                if forget:
                    with self._file.writing() as db:
                        db.execute("DELETE FROM once WHERE name = ? AND done = 0", (name,))
            finally:
                self._held.discard(name)

        await self._change(leave)

    async def answer(self, name: str, task_id: str) -> bytes | None:
        """Return an answer that is there."""

        def read() -> bytes | None:
            with self._file.reading() as db:
                query = "SELECT value FROM answers WHERE task_id = ? AND name = ?"
                row = first(db, query, task_id, name)
            return None if row is None else kept.read_answer(name, task_id, row[0])

        return await self._read(read)

    def sweep(self, now: float) -> None:
        """Drop what is over its time; called by the thread that writes."""
        with self._file.writing() as db:
            for table in ("once", "answers"):
                db.execute(f"DELETE FROM {table} WHERE until <= ?", (now,))

    def _begun(
        self, db: Connection, name: str, fingerprint: str, seed: str, keep_s: float
    ) -> Standing:
        now = self._now()
        query = "SELECT fingerprint, seed, done FROM once WHERE name = ? AND until > ?"
        row = first(db, query, name, now)
        if row is None:
            fresh = (name, now + keep_s, fingerprint, seed, 0)
            db.execute("INSERT OR REPLACE INTO once VALUES (?, ?, ?, ?, ?)", fresh)
            return Standing("new", seed)
        stored, seed, done = row
        if stored != fingerprint:
            return Standing("other", seed)
        if done:
            return Standing("done", seed)
        return Standing("held" if name in self._held else "again", seed)

    def _give_up(self, name: str, done: "asyncio.Task[Standing]") -> None:
        if not done.cancelled() and done.exception() is None and done.result().mine:
            self._held.discard(name)
