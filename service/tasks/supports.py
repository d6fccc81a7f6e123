"""Encoded supports of tasks: made at registration, cached, rebuilt from stored pictures."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np

from model.episode import EncodedSupport
from model.errors import KshotError
from model.media.keeping import decode_pictures
from service.background import spawn
from service.engine.engine import Engine
from service.engine.support_cache import SupportCache, SupportKey
from service.errors import DescriptionUnavailableError, NotReadyError, TaskIncompatibleError
from service.stores.errors import (
    RevisionConflictError,
    TaskExpiredError,
    TaskNotFoundError,
)
from service.stores.protocol import TaskStore
from service.stores.records import TaskRecord
from service.tasks.allowance import Credits
from service.tasks.records_at_hand import RecordsAtHand
from service.tasks.texts import TaskTexts

REMEMBERED = 1000  # tasks whose text failed

log = logging.getLogger("kshot.tasks")

Value = TypeVar("Value")
Frames = Mapping[str, np.ndarray]  # clip id -> uint8 [T, H, W, C]


@dataclass(slots=True)
class Preparation:
    """A task whose supports are being encoded for the first time."""

    clips: int
    done: int = 0
    failed: bool = False


class Supports:
    """Gives a task's record and encoded supports, and improves its text in the background.

    Args:
        store: Has the pictures.
        engine: Encodes them.
        cache: Keeps them in the device's memory.
        texts: The tasks' words.
    """

    def __init__(
        self,
        *,
        store: TaskStore,
        engine: Engine,
        cache: SupportCache,
        texts: TaskTexts,
    ) -> None:
        self.store = store
        self.engine = engine
        self.cache = cache
        self.texts = texts
        self._records = RecordsAtHand(store)
        self._preparations: dict[str, Preparation] = {}
        self._improving: set[str] = set()
        self._undescribed: OrderedDict[str, str] = OrderedDict()
        self._background: dict[str, set[asyncio.Task[None]]] = {}

    async def prepare(
        self, record: TaskRecord, frames: Frames, wait_s: float, credits: Credits
    ) -> Preparation:
        """Begin to encode a new task, and return when it is ready or `wait_s` are over.

        The credits go back when the work has ended, which may be later.
        """
        preparation = self._preparations[record.task_id] = Preparation(len(frames))
        work = self._start(
            record.task_id, self._prepare(record, frames, preparation, credits.tenant)
        )
        work.add_done_callback(lambda _: credits.give_back())
        await asyncio.wait({work}, timeout=wait_s)
        return preparation

    async def record(self, task_id: str) -> TaskRecord:
        """Return a task as it stands in the store, or as it last stood while the store is away."""
        try:
            return await self._records.get(task_id)
        except (TaskNotFoundError, TaskExpiredError):
            if task_id in self._records:  # another replica, or time, has ended it
                self.forget(task_id)
            raise

    def preparation(self, task_id: str) -> Preparation | None:
        """Return the progress of a task that is getting ready; None for all others."""
        return self._preparations.get(task_id)

    def undescribed(self, task_id: str) -> str | None:
        """Say why the language model's text did not come; None when it did, or nobody asked."""
        return self._undescribed.get(task_id)

    async def get(self, record: TaskRecord, wait_s: float) -> EncodedSupport:
        """Return a task's encoded supports, rebuilt from its pictures if need be.

        A caller may be cut off while it waits; what is built goes on for the next one.

        Args:
            record: The task.
            wait_s: How long to wait for a task that is getting ready for the first time.

        Raises:
            NotReadyError: It takes longer.
        """
        key = self._key(record)
        if (support := self.cache.peek(key)) is not None:
            return support
        preparation = self._preparations.get(record.task_id)
        fresh = preparation is not None and not preparation.failed
        try:
            async with asyncio.timeout(wait_s if fresh else None):
                support = await self.cache.get(key, lambda: self._rebuild(record))
        except TimeoutError:
            raise NotReadyError(
                f"Task {record.task_id} is still getting ready; ask again.", retry_after_s=1
            ) from None
        if not fresh:
            self._preparations.pop(record.task_id, None)
            self._improve_later(record)
        return support

    def pinned(self, record: TaskRecord) -> AbstractContextManager[None]:
        """Keep a task's encoded supports in the cache during the context, once they are there."""
        return self.cache.pinned(self._key(record))

    def check_size(self, record: TaskRecord) -> None:
        """Refuse a task whose encoded supports do not fit the budget."""
        self.engine.check_size([clip.label for clip in record.clips])

    def end_work(self, task_id: str) -> None:
        """Stop what runs for a task in the background, and answer no more queries of it."""
        self._records.forget(task_id)
        self._undescribed.pop(task_id, None)
        for work in self._background.pop(task_id, set()):
            work.cancel()
        self._preparations.pop(task_id, None)

    def forget(self, task_id: str) -> None:
        """Drop all that is derived from a task."""
        self.end_work(task_id)
        self.cache.forget(task_id)

    async def close(self) -> None:
        """Stop what runs in the background; the tasks themselves are safe."""
        running = [work for group in self._background.values() for work in group]
        for work in running:
            work.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await self.cache.close()

    async def _prepare(
        self, record: TaskRecord, frames: Frames, preparation: Preparation, tenant: str
    ) -> None:
        """Encode the frames that were stored; queries of the task join this one build."""

        def progress(done: int) -> None:
            preparation.done = done

        try:
            await self.cache.get(
                self._key(record),
                lambda: self._encode(record, frames, progress, "register", tenant),
            )
        except KshotError as error:
            log.error("Task %s could not be prepared: %s", record.task_id, error)
            preparation.failed = True
            return
        except BaseException:
            preparation.failed = True
            raise
        self._preparations.pop(record.task_id, None)
        self._improve_later(record)

    async def _rebuild(self, record: TaskRecord) -> EncodedSupport:
        pictures = await self.store.pictures(record.task_id)
        frames = await asyncio.to_thread(
            lambda: {clip_id: decode_pictures(stored) for clip_id, stored in pictures.items()}
        )
        return await self._encode(record, frames, lambda _: None, "rebuild")

    async def _encode(
        self,
        record: TaskRecord,
        frames: Frames,
        progress: Callable[[int], None],
        work: Literal["register", "rebuild"],
        tenant: str = "",
    ) -> EncodedSupport:
        model = self.engine.model
        want = (model.frames, model.size, model.size, 3)
        for clip in frames.values():
            if clip.shape != want:
                raise TaskIncompatibleError(
                    f"Task {record.task_id} keeps {len(clip)} frames of {clip.shape[1]} pixels and "
                    f"this checkpoint takes {model.frames} of {model.size}; register it again."
                )
        in_order = [frames[clip.clip_id] for clip in record.clips]
        frames_STHWC = await asyncio.to_thread(np.stack, in_order)  # 64 clips take 0.1 s
        text_NAE = await self.texts.encode(record.labels)
        classes = [clip.label for clip in record.clips]
        return await self.engine.encode_support(
            frames_STHWC, classes, text_NAE, progress, work=work, tenant=tenant
        )

    def _improve_later(self, record: TaskRecord) -> None:
        if self.texts.may_improve(record.labels) and record.task_id not in self._improving:
            self._improving.add(record.task_id)
            work = self._start(record.task_id, self._improve(record))
            work.add_done_callback(lambda _: self._improving.discard(record.task_id))

    async def _improve(self, record: TaskRecord) -> None:
        """Put the language model's text in the template's place, as the next revision."""
        try:
            if (labels := await self.texts.better(record.labels)) is None:
                return
            newer = replace(record, labels=labels, revision=record.revision + 1)
            support = await self._with_text_of(newer, self.cache.peek(self._key(record)))
            await self.store.replace(newer, expected_revision=record.revision)
        except (RevisionConflictError, TaskNotFoundError, TaskExpiredError):
            return  # somebody was faster, and what they wrote stands
        except DescriptionUnavailableError as error:
            log.warning("Task %s keeps its template text: %s", record.task_id, error)
            _remember(self._undescribed, record.task_id, str(error))
            return
        except KshotError as error:
            log.warning("Task %s keeps its template text (%s)", record.task_id, error.code)
            return
        self._undescribed.pop(record.task_id, None)
        if support is not None:
            self.cache.put(self._key(newer), support)
        self.cache.forget(record.task_id, below_revision=newer.revision)

    async def _with_text_of(
        self, newer: TaskRecord, older: EncodedSupport | None
    ) -> EncodedSupport | None:
        """Return the supports of a revision that differs from an older one in its text alone.

        Text that stands beside the support features is swapped. Text that is part of them means
        encoding the stored pictures again. None where no supports are at hand: then a query
        encodes them.
        """
        text_NAE = await self.texts.encode(newer.labels)
        if older is None:
            return None
        if self.engine.model.needs_text:
            return await self._rebuild(newer)
        if text_NAE is None:
            return None
        return older.with_text(text_NAE.to(older.classes.prototype_NTE.device))

    def _start(self, task_id: str, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = spawn(work)
        self._background.setdefault(task_id, set()).add(task)

        def finished(task: asyncio.Task[None]) -> None:
            group = self._background.get(task_id, set())
            group.discard(task)
            if not group:
                self._background.pop(task_id, None)

        task.add_done_callback(finished)
        return task

    def _key(self, record: TaskRecord) -> SupportKey:
        return SupportKey(record.task_id, record.revision, self.engine.model.fingerprint)


def _remember(by_task: OrderedDict[str, Value], task_id: str, value: Value) -> None:
    """Keep a value of the most recent tasks."""
    by_task[task_id] = value
    by_task.move_to_end(task_id)
    if len(by_task) > REMEMBERED:
        by_task.popitem(last=False)
