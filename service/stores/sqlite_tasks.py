"""Tasks and cached texts as rows: the blocking half of the SQLite store.

Records, pictures and texts are sealed: SQLite checks its log, and not the pages of its file.
Other columns repeat what a sealed value says, to find rows; a tombstone is a number alone.
"""

import contextlib
import logging
from collections.abc import Callable, Mapping
from sqlite3 import Connection
from typing import Any

from service.stores import records, sealing
from service.stores.errors import StoreCorruptError
from service.stores.records import TaskRecord
from service.stores.sqlite_file import SqliteFile

logger = logging.getLogger(__name__)

PRUNE_EVERY = 256  # cached texts written between two looks at their number
_BEHIND_ALL = "~"  # sorts behind every place


class SqliteTasks:
    """Blocking operations; those that write must be called by one thread alone."""

    def __init__(self, file: SqliteFile, now: Callable[[], float], text_entries: int) -> None:
        self._file = file
        self._now = now
        self._text_entries = text_entries
        self._texts_put = 0

    def create(self, record: TaskRecord, sealed: Mapping[str, bytes]) -> None:
        """Insert a task and what `sealed_pictures` returned, in one transaction."""
        task_id = record.task_id
        document = _seal_record(record)
        taken = (
            "SELECT 1 FROM tasks WHERE task_id = ?1"
            " UNION ALL SELECT 1 FROM tombstones WHERE task_id = ?1"
        )
        with self._file.writing(len(document) + sum(map(len, sealed.values()))) as db:
            if _first(db, taken, task_id):
                raise records.already_taken(task_id)
            row = (task_id, records.place_of(record), record.expires_at, document)
            db.execute("INSERT INTO tasks VALUES (?, ?, ?, ?)", row)
            _insert_pictures(db, task_id, sealed)
            if record.state == "uploaded":
                db.execute("INSERT INTO uploaded VALUES (?)", (task_id,))

    def get(self, task_id: str) -> TaskRecord:
        """Return a living task."""
        with self._file.reading() as db:
            return self._living(db, task_id)

    def pictures(self, task_id: str) -> dict[str, tuple[bytes, ...]]:
        """Return the pictures of a living task."""
        with self._file.reading() as db:
            record = self._living(db, task_id)
            query = "SELECT clip_id, packed FROM pictures WHERE task_id = ?"
            stored = dict(db.execute(query, (task_id,)).fetchall())
        found: dict[str, tuple[bytes, ...]] = {}
        for clip_id in (clip.clip_id for clip in record.clips):
            if clip_id not in stored:
                raise records.missing_pictures(task_id, clip_id)
            packed = sealing.unseal(f"pictures/{task_id}/{clip_id}", stored.pop(clip_id))
            found[clip_id] = sealing.unpack_pictures(packed)
        return found

    def replace(
        self,
        record: TaskRecord,
        expected_revision: int,
        sealed: Mapping[str, bytes] | None = None,
    ) -> None:
        """Put a new revision of a task's record in place, and pictures in that of its uploads."""
        document = _seal_record(record)
        with self._file.writing(len(document) + sum(map(len, (sealed or {}).values()))) as db:
            old = self._living(db, record.task_id)
            records.check_successor(old, record, expected_revision)
            db.execute(
                "UPDATE tasks SET expires_at = ?, record = ? WHERE task_id = ?",
                (record.expires_at, document, record.task_id),
            )
            if sealed is not None:
                _remove_pictures(db, record.task_id)
                _insert_pictures(db, record.task_id, sealed)

    def uploaded(self) -> list[str]:
        """Return the ids of the tasks that are uploaded."""
        with self._file.reading() as db:
            return [task_id for (task_id,) in db.execute("SELECT task_id FROM uploaded").fetchall()]

    def delete(self, task_id: str) -> bool:
        """Remove a task; a damaged one too."""
        with self._file.writing() as db:
            with contextlib.suppress(StoreCorruptError):
                record = _stored(db, task_id)
                if record is None or record.expired(self._now()):
                    return False
            _remove(db, task_id)
        return True

    def page(self, limit: int, cursor: str | None) -> tuple[list[TaskRecord], str | None]:
        """Return a page of living tasks, newest first."""
        before = _BEHIND_ALL if cursor is None else records.from_cursor(cursor)
        query = "SELECT task_id, record FROM tasks WHERE place < ? ORDER BY place DESC"
        page: list[TaskRecord] = []
        with self._file.reading() as db, contextlib.closing(db.execute(query, (before,))) as rows:
            for task_id, sealed in rows:
                try:
                    record = _unseal_record(task_id, sealed)
                except StoreCorruptError:
                    logger.exception("Task %s is damaged and left out of listings", task_id)
                    continue
                if record.expired(self._now()):
                    continue
                if len(page) == limit:
                    return page, records.to_cursor(records.place_of(page[-1]))
                page.append(record)
        return page, None

    def get_text(self, key: str) -> bytes | None:
        """Return a value that is there, whole and in its time."""
        name = sealing.text_name(key)
        with self._file.reading() as db:
            row = _first(db, "SELECT value FROM texts WHERE name = ?", name)
        if row is None:
            return None
        try:
            value, expires_at = sealing.unpack_text(sealing.unseal(f"text/{name}", row[0]))
        except StoreCorruptError:
            logger.warning("A cached text is damaged and was ignored: %s", name)
            return None
        return value if self._now() < expires_at else None

    def put_text(self, key: str, value: bytes, ttl_s: float) -> None:
        """Keep a value; now and then, drop what expired and what is over the bound."""
        name = sealing.text_name(key)
        expires_at = self._now() + ttl_s
        sealed = sealing.seal(f"text/{name}", sealing.pack_text(value, expires_at))
        with self._file.writing(len(sealed), durable=False) as db:
            db.execute("INSERT OR REPLACE INTO texts VALUES (?, ?, ?)", (name, expires_at, sealed))
            self._texts_put += 1
            if self._texts_put % PRUNE_EVERY == 0:
                self._prune(db, self._now())

    def ping(self) -> None:
        """Read something."""
        with self._file.reading() as db:
            _first(db, "SELECT 1 FROM tasks LIMIT 1")

    def due(self, now: float) -> list[str]:
        """Return the ids of tasks whose time has run out."""
        with self._file.reading() as db:
            rows = db.execute("SELECT task_id FROM tasks WHERE expires_at <= ?", (now,)).fetchall()
            return [task_id for (task_id,) in rows]

    def bury(self, task_id: str, now: float) -> None:
        """Put a tombstone in the place of a task, if its record, too, says that it has expired."""
        with self._file.writing() as db:
            try:
                record = _stored(db, task_id)
            except StoreCorruptError:
                return
            if record is not None and record.expired(now):
                _remove(db, task_id)
                row = (task_id, record.expires_at)
                db.execute("INSERT OR REPLACE INTO tombstones VALUES (?, ?)", row)

    def forget(self, now: float) -> None:
        """Remove tombstones that are a day old, and expired texts."""
        oldest = now - records.TOMBSTONE_S
        with self._file.writing() as db:
            db.execute("DELETE FROM tombstones WHERE expired_at <= ?", (oldest,))
            self._prune(db, now)

    def _prune(self, db: Connection, now: float) -> None:
        db.execute("DELETE FROM texts WHERE expires_at <= ?", (now,))
        db.execute(
            "DELETE FROM texts WHERE name IN (SELECT name FROM texts ORDER BY expires_at"
            " LIMIT max(0, (SELECT count(*) FROM texts) - ?))",
            (self._text_entries,),
        )

    def _living(self, db: Connection, task_id: str) -> TaskRecord:
        record = _stored(db, task_id)
        if record is not None and not record.expired(self._now()):
            return record
        expired_at = record.expires_at if record else None
        if record is None and records.is_id(task_id):
            row = _first(db, "SELECT expired_at FROM tombstones WHERE task_id = ?", task_id)
            expired_at = row[0] if row else None
        raise records.absent(task_id, expired_at, self._now())


def sealed_pictures(
    record: TaskRecord, pictures: Mapping[str, tuple[bytes, ...]]
) -> dict[str, bytes]:
    """Return the sealed pictures of a new task's clips, by clip id.

    Raises:
        ValueError: these are not pictures for exactly the clips of the record.
    """
    records.check_pictures(record, pictures)
    return {
        clip_id: sealing.seal(f"pictures/{record.task_id}/{clip_id}", sealing.pack_pictures(frames))
        for clip_id, frames in pictures.items()
    }


def _first(db: Connection, query: str, *values: object) -> tuple[Any, ...] | None:
    with contextlib.closing(db.execute(query, values)) as rows:
        row: tuple[Any, ...] | None = rows.fetchone()
    return row


def _stored(db: Connection, task_id: str) -> TaskRecord | None:
    if not records.is_id(task_id):
        return None
    row = _first(db, "SELECT record FROM tasks WHERE task_id = ?", task_id)
    return None if row is None else _unseal_record(task_id, row[0])


def _remove(db: Connection, task_id: str) -> None:
    db.execute("DELETE FROM tasks WHERE task_id = ?", (task_id,))
    _remove_pictures(db, task_id)


def _remove_pictures(db: Connection, task_id: str) -> None:
    db.execute("DELETE FROM pictures WHERE task_id = ?", (task_id,))
    db.execute("DELETE FROM uploaded WHERE task_id = ?", (task_id,))


def _insert_pictures(db: Connection, task_id: str, sealed: Mapping[str, bytes]) -> None:
    rows = ((task_id, clip_id, packed) for clip_id, packed in sealed.items())
    db.executemany("INSERT INTO pictures VALUES (?, ?, ?)", rows)


def _seal_record(record: TaskRecord) -> bytes:
    return sealing.seal(f"record/{record.task_id}", records.to_json(record))


def _unseal_record(task_id: str, sealed: bytes) -> TaskRecord:
    return records.from_json(bytes(sealing.unseal(f"record/{task_id}", sealed)))
