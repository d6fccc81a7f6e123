"""Tasks as folders: the blocking half of the directory store.

    tasks/<task_id>/record                the sealed record
    tasks/<task_id>/<clip_id>.pictures    the sealed pictures of one clip
    expired/<task_id>                     the sealed time at which a removed task expired

The order of listings lives in memory: the folder belongs to one process (see `directory`).
"""

import bisect
import contextlib
import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

from service.stores import durable_files, paging, records, sealing
from service.stores.errors import StoreCorruptError
from service.stores.records import TaskRecord

logger = logging.getLogger(__name__)

_LOCKS = 64


class TaskFolders:
    """Blocking operations on the folders of tasks; call them from threads, any number at once."""

    def __init__(self, root: Path, now: Callable[[], float]) -> None:
        self._tasks = root / "tasks"
        self._expired = root / "expired"
        self._now = now
        self._locks = [threading.Lock() for _ in range(_LOCKS)]
        self._index_lock = threading.Lock()
        self._order: list[str] = []  # places of all tasks, oldest first
        self._expiry: dict[str, float] = {}

    def open(self) -> None:
        """Make the folders, remove what crashes left, and read the order of the tasks."""
        for folder in (self._tasks, self._expired):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            durable_files.sweep_leftovers(folder)
        for folder in self._tasks.iterdir():
            if folder.is_dir() and records.is_id(folder.name):
                durable_files.sweep_leftovers(folder)
                self._enter(folder.name)

    def create(self, record: TaskRecord, pictures: Mapping[str, tuple[bytes, ...]]) -> None:
        """Make the folder of a task."""
        task_id = record.task_id
        records.check_pictures(record, pictures)
        files = {"record": _seal_record(record)}
        for clip_id, frames in pictures.items():
            packed = sealing.pack_pictures(frames)
            files[f"{clip_id}.pictures"] = sealing.seal(f"pictures/{task_id}/{clip_id}", packed)
        with self._lock(task_id):
            if (self._tasks / task_id).exists() or (self._expired / task_id).exists():
                raise records.already_taken(task_id)
            durable_files.write_folder(self._tasks / task_id, files)
            self._remember(record)

    def get(self, task_id: str) -> TaskRecord:
        """Return a living task."""
        record = self._read(task_id)
        if record is None:
            self._raise_absent(task_id, self._tombstone(task_id))
        if record.expired(self._now()):
            self._raise_absent(task_id, record.expires_at)
        return record

    def pictures(self, task_id: str) -> dict[str, tuple[bytes, ...]]:
        """Return the pictures of a living task."""
        found: dict[str, tuple[bytes, ...]] = {}
        for clip in self.get(task_id).clips:
            subject = f"pictures/{task_id}/{clip.clip_id}"
            sealed = self._if_there(self._tasks / task_id / f"{clip.clip_id}.pictures")
            if sealed is None:
                self.get(task_id)  # deleted meanwhile: says so
                raise records.missing_pictures(task_id, clip.clip_id)
            found[clip.clip_id] = sealing.unpack_pictures(sealing.unseal(subject, sealed))
        return found

    def replace(self, record: TaskRecord, expected_revision: int) -> None:
        """Put a new revision of a task's record in place."""
        with self._lock(record.task_id):
            old = self.get(record.task_id)
            records.check_successor(old, record, expected_revision)
            path = self._tasks / record.task_id / "record"
            durable_files.write_file(path, _seal_record(record))
            self._remember(record)

    def delete(self, task_id: str) -> bool:
        """Remove a task; a damaged one too."""
        if not records.is_id(task_id):
            return False
        with self._lock(task_id):
            with contextlib.suppress(StoreCorruptError):
                record = self._read(task_id)
                if record is None or record.expired(self._now()):
                    return False
            durable_files.remove_folder(self._tasks / task_id)
            self._forget(task_id)
        return True

    def page(self, limit: int, cursor: str | None) -> tuple[list[TaskRecord], str | None]:
        """Return a page of living tasks, newest first."""
        with self._index_lock:
            end = len(self._order)
            if cursor is not None:
                end = bisect.bisect_left(self._order, paging.from_cursor(cursor))
            older = self._order[:end]
        page: list[TaskRecord] = []
        for place in reversed(older):
            record = self._readable(paging.task_at(place))
            if record is None or record.expired(self._now()):
                continue
            if len(page) == limit:
                return page, paging.to_cursor(paging.place_of(page[-1]))
            page.append(record)
        return page, None

    def sweep(self) -> None:
        """Bury expired tasks under tombstones, and drop tombstones that are a day old."""
        now = self._now()
        with self._index_lock:
            due = [task_id for task_id, expiry in self._expiry.items() if expiry <= now]
        for task_id in due:
            with self._lock(task_id), contextlib.suppress(StoreCorruptError):
                record = self._read(task_id)
                if record is not None and record.expires_at is not None and record.expired(now):
                    self._bury(task_id, record.expires_at)
        for path in self._expired.iterdir():
            died = self._tombstone(path.name)
            if died is not None and died + records.TOMBSTONE_S <= now:
                path.unlink(missing_ok=True)

    def ping(self) -> None:
        """Look whether the folders are there."""
        self._tasks.stat()
        self._expired.stat()

    def _bury(self, task_id: str, expired_at: float) -> None:
        tombstone = sealing.seal(f"expired/{task_id}", repr(expired_at).encode())
        durable_files.write_file(self._expired / task_id, tombstone)
        durable_files.remove_folder(self._tasks / task_id)
        self._forget(task_id)

    def _read(self, task_id: str) -> TaskRecord | None:
        if not records.is_id(task_id):
            return None
        sealed = self._if_there(self._tasks / task_id / "record")
        if sealed is None:
            return None
        return records.from_json(sealing.unseal(f"record/{task_id}", sealed))

    def _readable(self, task_id: str) -> TaskRecord | None:
        try:
            return self._read(task_id)
        except StoreCorruptError:
            logger.exception("Task %s is damaged and left out of listings", task_id)
            return None

    def _tombstone(self, task_id: str) -> float | None:
        if not records.is_id(task_id):
            return None
        sealed = self._if_there(self._expired / task_id)
        return None if sealed is None else float(sealing.unseal(f"expired/{task_id}", sealed))

    def _if_there(self, path: Path) -> bytes | None:
        try:
            return path.read_bytes()
        except FileNotFoundError:
            self._tasks.stat()  # a store whose disk went away is not a store without tasks
            return None

    def _raise_absent(self, task_id: str, expired_at: float | None) -> NoReturn:
        raise records.absent(task_id, expired_at, self._now())

    def _enter(self, task_id: str) -> None:
        record = self._readable(task_id)
        if record is not None:
            self._remember(record)

    def _remember(self, record: TaskRecord) -> None:
        place = paging.place_of(record)
        with self._index_lock:
            at = bisect.bisect_left(self._order, place)
            if self._order[at : at + 1] != [place]:
                self._order.insert(at, place)
            self._expiry.pop(record.task_id, None)
            if record.expires_at is not None:
                self._expiry[record.task_id] = record.expires_at

    def _forget(self, task_id: str) -> None:
        with self._index_lock:
            self._order = [place for place in self._order if paging.task_at(place) != task_id]
            self._expiry.pop(task_id, None)

    def _lock(self, task_id: str) -> threading.Lock:
        return self._locks[hash(task_id) % _LOCKS]


def _seal_record(record: TaskRecord) -> bytes:
    return sealing.seal(f"record/{record.task_id}", records.to_json(record))
