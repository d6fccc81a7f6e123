"""The embedded store: a folder that one service process owns.

The owner holds a lock on the folder's `.lock` file for as long as it lives; the kernel lets go of
it however the process ends. Several services share tasks through `RedisStore`.
"""

import asyncio
import contextlib
import errno
import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, Self, TypeVar

from service.stores.errors import StoreError, StoreUnavailableError
from service.stores.records import TaskRecord
from service.stores.shielding import Shield
from service.stores.task_folders import TaskFolders
from service.stores.text_files import TextFiles

logger = logging.getLogger(__name__)

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class DirectoryStore:
    """A `TaskStore` in a folder; file work runs in threads of its own."""

    def __init__(self, root: Path, now: Callable[[], float], text_entries: int) -> None:
        self._root = root.expanduser()
        self._folders = TaskFolders(self._root, now)
        self._text = TextFiles(self._root / "text", now, text_entries)
        self._threads = ThreadPoolExecutor(max_workers=8, thread_name_prefix="kshot-store")
        self._shield = Shield()
        self._lock: int | None = None
        self._sweeper: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls,
        root: Path,
        *,
        now: Callable[[], float] = time.time,
        sweep_s: float = 60.0,
        text_entries: int = 20_000,
    ) -> Self:
        """Open, or make, the store in a folder.

        Args:
            root: The folder; its file system must be local, with working fsync and flock.
            now: The clock, unix time.
            sweep_s: Pause between removals of expired tasks.
            text_entries: Cached texts kept at most, about.

        Raises:
            StoreUnavailableError: the folder cannot be used, or another process uses it.
        """
        store = cls(root, now, text_entries)
        try:
            await store._run(store._open)
        except BaseException:
            await store.close()
            raise
        store._sweeper = asyncio.create_task(store._keep_swept(sweep_s))
        return store

    async def create(self, record: TaskRecord, pictures: Mapping[str, tuple[bytes, ...]]) -> None:
        """Keep a new task; durable when this returns."""
        await self._run(self._folders.create, record, pictures)

    async def get(self, task_id: str) -> TaskRecord:
        """Return a task."""
        return await self._run(self._folders.get, task_id)

    async def pictures(self, task_id: str) -> dict[str, tuple[bytes, ...]]:
        """Return the pictures of a task."""
        return await self._run(self._folders.pictures, task_id)

    async def replace(self, record: TaskRecord, *, expected_revision: int) -> None:
        """Put a new revision in the place of `expected_revision`."""
        await self._run(self._folders.replace, record, expected_revision)

    async def delete(self, task_id: str) -> bool:
        """Remove a task."""
        return await self._run(self._folders.delete, task_id)

    async def list(self, *, limit: int, cursor: str | None) -> tuple[list[TaskRecord], str | None]:
        """Return a page of living tasks, newest first."""
        return await self._run(self._folders.page, limit, cursor)

    async def get_text(self, key: str) -> bytes | None:
        """Return a cached value."""
        return await self._run(self._text.get, key)

    async def put_text(self, key: str, value: bytes, *, ttl_s: float) -> None:
        """Cache a value."""
        await self._run(self._text.put, key, value, ttl_s)

    async def ping(self) -> None:
        """Return when the folders are there."""
        await self._run(self._folders.ping)

    async def sweep(self) -> None:
        """Remove expired tasks and texts, and tombstones that are a day old."""
        await self._run(self._folders.sweep)
        await self._run(self._text.sweep)

    async def close(self) -> None:
        """Let running operations end, then let go of the folder."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sweeper
            self._sweeper = None
        await self._shield.drain()
        self._threads.shutdown()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def _run(
        self,
        work: Callable[Parameters, Result],
        *args: Parameters.args,
        **kwargs: Parameters.kwargs,
    ) -> Result:
        async def in_thread() -> Result:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, guarded)

        def guarded() -> Result:
            with _translated():
                return work(*args, **kwargs)

        return await self._shield.run(in_thread())

    def _open(self) -> None:
        try:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(self._root / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StoreUnavailableError(
                f"The store folder {self._root} is in use by another process; "
                "stop that one, choose another folder, or share tasks through Redis."
            ) from error
        except OSError as error:
            raise StoreUnavailableError(
                f"The store folder {self._root} cannot be used ({error.strerror}); "
                "choose one that this user may write to."
            ) from error
        self._folders.open()
        self._text.open()
        self._folders.sweep()

    async def _keep_swept(self, pause_s: float) -> None:
        while True:
            await asyncio.sleep(pause_s)
            try:
                await self.sweep()
            except StoreError:
                logger.exception("Expired tasks could not be removed; trying again later")


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Turn the file system's errors into the store's."""
    try:
        yield
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
        reason = "is full" if full else "cannot be read or written"
        raise StoreUnavailableError(
            f"The folder of the task store {reason} ({errno.errorcode.get(error.errno or 0)}); "
            "repeat the request once the operator has seen to it."
        ) from error
