"""The embedded store: one SQLite file that one service process owns.

All work on the file runs in threads, one that writes and some that read. Several services share
tasks through `RedisStore`.
"""

import asyncio
import contextlib
import errno
import logging
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Self, TypeVar

from service.background import spawn
from service.stores import errors
from service.stores.errors import StoreError, StoreUnavailableError
from service.stores.inboxes.sqlite import SqliteInbox
from service.stores.once.sqlite import SqliteOnce
from service.stores.protocol import Pictures, Shield
from service.stores.quotas.kept import Quotas
from service.stores.quotas.sqlite import SqliteQuotas
from service.stores.records import TaskRecord
from service.stores.sqlite_cache import SqliteCache
from service.stores.sqlite_file import SqliteFile
from service.stores.sqlite_tasks import SqliteTasks, sealed_pictures

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

READERS = 4
SWEEP_S = 60.0  # between removals of expired tasks
TEXT_ENTRIES = 20_000  # cached texts kept at most, about


class SqliteStore:
    """A `TaskStore` in one file."""

    def __init__(self, path: Path, now: Callable[[], float], text_entries: int) -> None:
        self._now = now
        self._file = SqliteFile(path, READERS)
        self._tasks = SqliteTasks(self._file, now)
        self._cache = SqliteCache(self._file, self._tasks, now, text_entries)
        self.inbox = SqliteInbox(self._file, now, self._look, self._change)
        self.once = SqliteOnce(self._file, now, self._look, self._change)
        self.quotas = SqliteQuotas(self._file, now, self._look)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="kshot-store-writer")
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="kshot-store-reader")
        self._shield = Shield()
        self._sweeper: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        now: Callable[[], float] = time.time,
        sweep_s: float = SWEEP_S,
        text_entries: int = TEXT_ENTRIES,
    ) -> Self:
        """Open, or make, the store in a file.

        Args:
            path: The file; its file system must be local.
            now: The clock, unix time.
            sweep_s: Pause between removals of expired tasks.
            text_entries: Cached texts kept at most, about.

        Raises:
            StoreUnavailableError: the file cannot be used, or another process uses it.
            StoreCorruptError: the file is torn, no store of kshot's, or from a newer version.
        """
        store = cls(path, now, text_entries)
        try:
            await store._write(store._file.open)
        except BaseException as error:
            await store.close()
            if isinstance(error, StoreError):
                raise type(error)(f"{path}: {error}") from error.__cause__
            raise
        store._sweeper = spawn(store._keep_swept(sweep_s))
        return store

    async def create(
        self, record: TaskRecord, pictures: Pictures, usual: Quotas | None = None
    ) -> None:
        """Keep a new task; durable when this returns."""
        await self._shield.run(self._create(record, pictures, usual))

    async def get(self, task_id: str) -> TaskRecord:
        """Return a task."""
        return await self._shield.run(self._read(lambda: self._tasks.get(task_id)))

    async def pictures(
        self, task_id: str, clip_ids: Collection[str] | None = None
    ) -> dict[str, tuple[bytes, ...]]:
        """Return the pictures of a task."""
        return await self._shield.run(self._read(lambda: self._tasks.pictures(task_id, clip_ids)))

    async def replace(
        self,
        record: TaskRecord,
        *,
        expected_revision: int,
        pictures: Pictures | None = None,
        usual: Quotas | None = None,
    ) -> None:
        """Put a new revision in the place of `expected_revision`."""
        await self._shield.run(self._replace(record, expected_revision, pictures or {}, usual))

    async def uploaded(self) -> Sequence[str]:
        """Return the ids of the tasks that are uploaded."""
        return await self._shield.run(self._read(self._tasks.uploaded))

    async def delete(self, task_id: str, *, expected_revision: int | None = None) -> bool:
        """Remove a task; its bytes are gone and its room is given back when this returns."""
        return await self._shield.run(self._delete(task_id, expected_revision))

    async def list(
        self, *, limit: int, cursor: str | None, owner: str = ""
    ) -> tuple[list[TaskRecord], str | None]:
        """Return a page of living tasks, newest first."""
        return await self._shield.run(self._read(lambda: self._tasks.page(limit, cursor, owner)))

    async def get_text(self, key: str) -> bytes | None:
        """Return a cached value."""
        return await self._shield.run(self._read(lambda: self._cache.get_text(key)))

    async def put_text(self, key: str, value: bytes, *, ttl_s: float) -> None:
        """Cache a value; it need not survive a loss of power."""
        await self._change(lambda: self._cache.put_text(key, value, ttl_s))

    async def get_supports(self, task_id: str, name: str) -> bytes | None:
        """Return kept encoded supports."""
        return await self._shield.run(self._read(lambda: self._cache.get_supports(task_id, name)))

    async def put_supports(self, record: TaskRecord, name: str, value: bytes) -> None:
        """Keep encoded supports; they need not survive a loss of power."""
        await self._change(lambda: self._cache.put_supports(record, name, value))

    async def note_uses(self, used: Mapping[str, float]) -> None:
        """Keep when tasks were used last; it need not survive a loss of power."""
        await self._change(lambda: self._cache.note_uses(used))

    async def recent(self, limit: int) -> Sequence[str]:
        """Return the ids of the tasks that were used last."""
        return await self._shield.run(self._read(lambda: self._cache.recent(limit)))

    async def ids(self) -> Sequence[str]:
        """Return the ids of all tasks."""
        return await self._shield.run(self._read(self._tasks.ids))

    async def keyed(self) -> bool:
        """Tell whether an API key was ever made."""
        return await self._shield.run(self._read(self._tasks.keyed))

    async def limited(self) -> bool:
        """Tell whether a tenant has quotas of its own."""
        return await self._shield.run(self._read(self._tasks.limited))

    async def ping(self) -> None:
        """Return when the file is in its place and can be read."""
        await self._shield.run(self._read(self._tasks.ping))

    async def sweep(self) -> None:
        """Remove expired tasks and texts, and tombstones that are a day old."""
        await self._shield.run(self._sweep(self._now()))

    async def close(self) -> None:
        """Let running operations end, then let go of the file."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sweeper
            self._sweeper = None
        await self._shield.drain()
        await asyncio.to_thread(self._file.close)
        self._writer.shutdown()
        self._readers.shutdown()

    async def _create(self, record: TaskRecord, pictures: Pictures, usual: Quotas | None) -> None:
        sealed = await self._read(lambda: sealed_pictures(record.task_id, pictures))
        await self._write(lambda: self._tasks.create(record, sealed, usual))
        self._shield.start(self._merge())

    async def _replace(
        self, record: TaskRecord, expected_revision: int, pictures: Pictures, usual: Quotas | None
    ) -> None:
        sealed = await self._read(lambda: sealed_pictures(record.task_id, pictures))
        went = await self._write(
            lambda: self._tasks.replace(record, expected_revision, sealed, usual)
        )
        # Nothing of pictures or uploads that went stays in the file.
        self._shield.start(self._give_room_back() if went else self._merge())

    async def _delete(self, task_id: str, expected_revision: int | None) -> bool:
        deleted = await self._write(lambda: self._tasks.delete(task_id, expected_revision))
        if deleted:
            await self._give_room_back()
        return deleted

    async def _look(self, work: Callable[[], Result]) -> Result:
        return await self._shield.run(self._read(work))

    async def _change(self, work: Callable[[], Result]) -> Result:
        done = await self._shield.run(self._write(work))
        self._shield.start(self._merge())
        return done

    async def _sweep(self, now: float) -> None:
        for task_id in await self._read(lambda: self._tasks.due(now)):
            # One by one, so that requests are served in between.
            await self._write(partial(self._tasks.bury, task_id, now))
        await self._write(lambda: self._tasks.forget(now))
        await self._write(lambda: self._cache.prune(now))
        await self._write(lambda: self.inbox.sweep(now))
        await self._write(lambda: self.once.sweep(now))
        await self._give_room_back()

    async def _give_room_back(self) -> None:
        """Make the file smaller step by step; what fails is left to the next sweep."""
        try:
            while await self._write(self._file.shrink):
                pass
        except StoreError:
            logger.exception("The store file could not be made smaller; trying again later")

    async def _merge(self) -> None:
        """Merge the log; started, and not awaited, once a change is durable."""
        try:
            await self._write(self._file.merge)
        except StoreError:
            logger.exception("The write-ahead log could not be merged; trying again later")

    async def _read(self, work: Callable[[], Result]) -> Result:
        return await _in_thread(self._readers, work)

    async def _write(self, work: Callable[[], Result]) -> Result:
        return await _in_thread(self._writer, work)

    async def _keep_swept(self, pause_s: float) -> None:
        while True:
            try:
                await self.sweep()
            except StoreError:
                logger.exception("Expired tasks could not be removed; trying again later")
            await asyncio.sleep(pause_s)


async def _in_thread(threads: ThreadPoolExecutor, work: Callable[[], Result]) -> Result:
    def guarded() -> Result:
        with _translated():
            return work()

    return await asyncio.get_running_loop().run_in_executor(threads, guarded)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Turn SQLite's errors, and the file system's, into the store's."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
            raise errors.damaged_file() from error
        if code == sqlite3.SQLITE_FULL:
            raise errors.store_full("disk") from error
        if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
            raise StoreUnavailableError(
                "Another program locks the file of the task store; "
                "repeat the request once the operator has ended it."
            ) from error
        name = getattr(error, "sqlite_errorname", type(error).__name__)
        raise errors.unusable_file(name) from error
    except OSError as error:
        raise errors.unusable_file(errno.errorcode.get(error.errno or 0, "OSError")) from error
