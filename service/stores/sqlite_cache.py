"""What a SQLite store keeps beside tasks: cached texts, encoded supports, and when tasks were used.

All of it can be lost. Texts and supports are sealed, as records are.
"""

from collections.abc import Callable, Mapping
from sqlite3 import Connection

from service.stores import sealing
from service.stores.records import TaskRecord
from service.stores.sqlite_file import SqliteFile
from service.stores.sqlite_tasks import SqliteTasks, first

PRUNE_EVERY = 256  # cached texts written between two looks at their number
USE_BYTES = 64  # about, of one noted use


class SqliteCache:
    """Blocking operations; those that write must be called by the thread that writes tasks."""

    def __init__(
        self, file: SqliteFile, tasks: SqliteTasks, now: Callable[[], float], text_entries: int
    ) -> None:
        self._file = file
        self._tasks = tasks
        self._now = now
        self._text_entries = text_entries
        self._texts_put = 0

    def get_text(self, key: str) -> bytes | None:
        """Return a value that is there, whole and in its time."""
        name = sealing.text_name(key)
        with self._file.reading() as db:
            row = first(db, "SELECT value FROM texts WHERE name = ?", name)
        return sealing.read_text(name, row[0], self._now()) if row else None

    def put_text(self, key: str, value: bytes, ttl_s: float) -> None:
        """Keep a value; now and then, drop what expired and what is over the bound."""
        name = sealing.text_name(key)
        expires_at = self._now() + ttl_s
        sealed = sealing.seal_text(name, value, expires_at)
        with self._file.writing(len(sealed), durable=False) as db:
            db.execute("INSERT OR REPLACE INTO texts VALUES (?, ?, ?)", (name, expires_at, sealed))
            self._texts_put += 1
            if self._texts_put % PRUNE_EVERY == 0:
                self._prune(db, self._now())

    def get_supports(self, task_id: str, name: str) -> bytes | None:
        """Return a task's supports that were kept under this name and are whole."""
        with self._file.reading() as db:
            query = "SELECT value FROM supports WHERE task_id = ? AND name = ?"
            row = first(db, query, task_id, name)
        return sealing.read_supports(task_id, name, row[0]) if row else None

    def put_supports(self, record: TaskRecord, name: str, value: bytes) -> None:
        """Keep the supports of a task, if it still stands as this record says."""
        sealed = sealing.seal_supports(record.task_id, name, value)
        with self._file.writing(len(sealed), durable=False) as db:
            if self._tasks.stands(db, record):
                row = (record.task_id, name, sealed)
                db.execute("INSERT OR REPLACE INTO supports VALUES (?, ?, ?)", row)

    def note_uses(self, used: Mapping[str, float]) -> None:
        """Keep when tasks that are there were used last."""
        with self._file.writing(USE_BYTES * len(used), durable=False) as db:
            db.executemany(
                "INSERT INTO uses SELECT task_id, ? FROM tasks WHERE task_id = ?"
                " ON CONFLICT (task_id) DO UPDATE SET used_at = max(used_at, excluded.used_at)",
                ((at, task_id) for task_id, at in used.items()),
            )

    def recent(self, limit: int) -> list[str]:
        """Return the ids of tasks, the one that was used last first."""
        with self._file.reading() as db:
            query = "SELECT task_id FROM uses ORDER BY used_at DESC LIMIT ?"
            return [task_id for (task_id,) in db.execute(query, (limit,)).fetchall()]

    def prune(self, now: float) -> None:
        """Remove expired texts, and those over the bound."""
        with self._file.writing() as db:
            self._prune(db, now)

    def _prune(self, db: Connection, now: float) -> None:
        db.execute("DELETE FROM texts WHERE expires_at <= ?", (now,))
        db.execute(
            "DELETE FROM texts WHERE name IN (SELECT name FROM texts ORDER BY expires_at"
            " LIMIT max(0, (SELECT count(*) FROM texts) - ?))",
            (self._text_entries,),
        )
