"""Tasks as rows: the blocking half of the SQLite store.

Records and pictures are sealed: SQLite checks its log, and not the pages of its file.
Other columns repeat what a sealed value says, to find rows; a tombstone is a number alone.
"""

import contextlib
import logging
from collections.abc import Callable, Collection, Mapping
from sqlite3 import Connection
from typing import Any

from service.stores import records, sealing
from service.stores.errors import StoreCorruptError
from service.stores.quotas.kept import Quotas
from service.stores.quotas.rows import hold
from service.stores.records import TaskRecord
from service.stores.sealing import SealedRecords
from service.stores.sqlite_file import SqliteFile

logger = logging.getLogger(__name__)


class SqliteTasks:
    """Blocking operations; those that write must be called by one thread alone."""

    def __init__(self, file: SqliteFile, now: Callable[[], float]) -> None:
        self._file = file
        self._now = now
        self._records = SealedRecords()

    def create(self, record: TaskRecord, sealed: Mapping[str, bytes], usual: Quotas | None) -> None:
        """Insert a task and what `sealed_pictures` returned, in one transaction."""
        task_id = record.task_id
        records.check_pictures(record, sealed)
        document = sealing.seal_record(record)
        taken = (
            "SELECT 1 FROM tasks WHERE task_id = ?1"
            " UNION ALL SELECT 1 FROM tombstones WHERE task_id = ?1"
        )
        with self._file.writing(len(document) + sum(map(len, sealed.values()))) as db:
            if first(db, taken, task_id):
                raise records.already_taken(task_id)
            row = (task_id, records.place_of(record), record.expires_at, document)
            db.execute("INSERT INTO tasks VALUES (?, ?, ?, ?)", row)
            _insert_pictures(db, task_id, sealed)
            hold(db, record, usual, self._now())
            if record.state == "uploaded":
                db.execute("INSERT INTO uploaded VALUES (?)", (task_id,))

    def get(self, task_id: str) -> TaskRecord:
        """Return a living task."""
        with self._file.reading() as db:
            return self._living(db, task_id)

    def pictures(
        self, task_id: str, clip_ids: Collection[str] | None = None
    ) -> dict[str, tuple[bytes, ...]]:
        """Return the pictures of a living task, or those of some of its clips."""
        with self._file.reading() as db:
            record = self._living(db, task_id)
            known = [clip.clip_id for clip in record.clips]
            wanted = known if clip_ids is None else [name for name in known if name in clip_ids]
            query = "SELECT packed FROM pictures WHERE task_id = ? AND clip_id = ?"
            rows = {clip_id: first(db, query, task_id, clip_id) for clip_id in wanted}
        found: dict[str, tuple[bytes, ...]] = {}
        for clip_id, row in rows.items():
            if row is None:
                raise records.missing_pictures(task_id, clip_id)
            packed = sealing.unseal(f"pictures/{task_id}/{clip_id}", row[0])
            found[clip_id] = sealing.unpack_pictures(packed)
        return found

    def replace(
        self,
        record: TaskRecord,
        expected_revision: int,
        sealed: Mapping[str, bytes],
        usual: Quotas | None,
    ) -> bool:
        """Put a new revision of a task in place; tell whether pictures went."""
        task_id = record.task_id
        document = sealing.seal_record(record)
        with self._file.writing(len(document) + sum(map(len, sealed.values()))) as db:
            old = self._living(db, task_id)
            change = records.check_successor(old, record, expected_revision, sealed.keys())
            db.execute(
                "UPDATE tasks SET expires_at = ?, record = ? WHERE task_id = ?",
                (record.expires_at, document, task_id),
            )
            db.execute("DELETE FROM supports WHERE task_id = ?", (task_id,))
            if change.whole:
                for table in ("pictures", "uploaded"):
                    db.execute(f"DELETE FROM {table} WHERE task_id = ?", (task_id,))
            else:
                gone = [(task_id, clip_id) for clip_id in change.removed]
                db.executemany("DELETE FROM pictures WHERE task_id = ? AND clip_id = ?", gone)
            _insert_pictures(db, task_id, sealed)
            hold(db, record, usual, self._now())
        return bool(change.removed)

    def uploaded(self) -> list[str]:
        """Return the ids of the tasks that are uploaded."""
        with self._file.reading() as db:
            return [task_id for (task_id,) in db.execute("SELECT task_id FROM uploaded").fetchall()]

    def delete(self, task_id: str, expected_revision: int | None) -> bool:
        """Remove a task; a damaged one too."""
        with self._file.writing() as db:
            with contextlib.suppress(StoreCorruptError):
                record = self._stored(db, task_id)
                if record is None or record.expired(self._now()):
                    return False
                if expected_revision not in (None, record.revision):
                    raise records.revision_conflict(task_id, record.revision, expected_revision)
            self._remove(db, task_id)
        return True

    def page(
        self, limit: int, cursor: str | None, owner: str = ""
    ) -> tuple[list[TaskRecord], str | None]:
        """Return a page of a tenant's living tasks, newest first."""
        first_place, behind = records.places_of(owner)
        span = (first_place, behind if cursor is None else records.from_cursor(cursor, owner))
        query = (
            "SELECT task_id, record FROM tasks WHERE place >= ? AND place < ? ORDER BY place DESC"
        )
        page: list[TaskRecord] = []
        with self._file.reading() as db, contextlib.closing(db.execute(query, span)) as rows:
            for task_id, sealed in rows:
                try:
                    record = self._records.read(task_id, sealed)
                except StoreCorruptError:
                    logger.exception("Task %s is damaged and left out of listings", task_id)
                    continue
                if record.expired(self._now()):
                    continue
                if len(page) == limit:
                    return page, records.to_cursor(records.place_of(page[-1]))
                page.append(record)
        return page, None

    def ping(self) -> None:
        """Read something."""
        with self._file.reading() as db:
            first(db, "SELECT 1 FROM tasks LIMIT 1")

    def ids(self) -> list[str]:
        """Return the ids of all tasks, newest first."""
        with self._file.reading() as db:
            rows = db.execute("SELECT place FROM tasks ORDER BY place DESC").fetchall()
        return [records.task_at(place) for (place,) in rows]

    def keyed(self) -> bool:
        """Tell whether there is an API key, also a revoked one."""
        with self._file.reading() as db:
            return first(db, "SELECT 1 FROM keys LIMIT 1") is not None

    def limited(self) -> bool:
        """Tell whether a tenant has quotas of its own."""
        with self._file.reading() as db:
            return first(db, "SELECT 1 FROM quotas LIMIT 1") is not None

    def due(self, now: float) -> list[str]:
        """Return the ids of tasks whose time has run out."""
        with self._file.reading() as db:
            rows = db.execute("SELECT task_id FROM tasks WHERE expires_at <= ?", (now,)).fetchall()
            return [task_id for (task_id,) in rows]

    def bury(self, task_id: str, now: float) -> None:
        """Put a tombstone in the place of a task, if its record, too, says that it has expired."""
        with self._file.writing() as db:
            try:
                record = self._stored(db, task_id)
            except StoreCorruptError:
                return
            if record is not None and record.expired(now):
                self._remove(db, task_id)
                row = (task_id, record.expires_at)
                db.execute("INSERT OR REPLACE INTO tombstones VALUES (?, ?)", row)

    def forget(self, now: float) -> None:
        """Remove tombstones that are a day old."""
        oldest = now - records.TOMBSTONE_S
        with self._file.writing() as db:
            db.execute("DELETE FROM tombstones WHERE expired_at <= ?", (oldest,))

    def stands(self, db: Connection, record: TaskRecord) -> bool:
        """Tell whether a task is there, at the revision of a record."""
        stored = self._stored(db, record.task_id)
        return stored is not None and stored.revision == record.revision

    def _living(self, db: Connection, task_id: str) -> TaskRecord:
        record = self._stored(db, task_id)
        if record is not None and not record.expired(self._now()):
            return record
        expired_at = record.expires_at if record else None
        if record is None and records.is_id(task_id):
            row = first(db, "SELECT expired_at FROM tombstones WHERE task_id = ?", task_id)
            expired_at = row[0] if row else None
        raise records.absent(task_id, expired_at, self._now())

    def _stored(self, db: Connection, task_id: str) -> TaskRecord | None:
        if not records.is_id(task_id):
            return None
        row = first(db, "SELECT record FROM tasks WHERE task_id = ?", task_id)
        return None if row is None else self._records.read(task_id, row[0])

    def _remove(self, db: Connection, task_id: str) -> None:
        self._records.forget(task_id)
        for table in (
            *("tasks", "pictures", "uploaded", "supports", "uses", "inbox", "answers", "held"),
        ):
            db.execute(f"DELETE FROM {table} WHERE task_id = ?", (task_id,))


def sealed_pictures(task_id: str, pictures: Mapping[str, tuple[bytes, ...]]) -> dict[str, bytes]:
    """Return pictures of a task's clips as they are stored, by clip id."""
    return {
        clip_id: sealing.seal(f"pictures/{task_id}/{clip_id}", sealing.pack_pictures(frames))
        for clip_id, frames in pictures.items()
    }


def first(db: Connection, query: str, *values: object) -> tuple[Any, ...] | None:
    """Return the first row that a query finds."""
    with contextlib.closing(db.execute(query, values)) as rows:
        row: tuple[Any, ...] | None = rows.fetchone()
    return row


def _insert_pictures(db: Connection, task_id: str, sealed: Mapping[str, bytes]) -> None:
    rows = ((task_id, clip_id, packed) for clip_id, packed in sealed.items())
    db.executemany("INSERT INTO pictures VALUES (?, ?, ?)", rows)
