"""Encoded supports of tasks: made at registration, cached, rebuilt from stored pictures."""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Coroutine
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TypeVar

from model.episode import EncodedSupport
from model.errors import KshotError
from service.background import spawn
from service.engine.engine import Engine
from service.engine.support_cache import SupportCache, SupportKey
from service.errors import DescriptionUnavailableError, NotReadyError
from service.stores.errors import (
    RevisionConflictError,
    TaskExpiredError,
    TaskNotFoundError,
)
from service.stores.protocol import TaskStore
from service.stores.records import TaskRecord
from service.tasks.allowance import Credits, Deadline
from service.tasks.encoding import Encoding, Frames, Preparation
from service.tasks.kept_supports import KeptSupports
from service.tasks.records_at_hand import RecordsAtHand
from service.tasks.texts import TaskTexts

REMEMBERED = 1000  # tasks whose text failed
LOOK_S = 0.1  # between two looks at whether a rebuild is done in time
WARMING = "warming"  # a tenant of its own, so that it takes turns with rebuilds that are waited for

log = logging.getLogger("kshot.tasks")

Value = TypeVar("Value")


class Supports:
    """Gives a task's record and encoded supports, and improves its text in the background.

    Args:
        store: Has the pictures.
        engine: Encodes them.
        cache: Keeps them in the device's memory.
        texts: The tasks' words.
        kept: Those that the store has.
    """

    def __init__(
        self,
        *,
        store: TaskStore,
        engine: Engine,
        cache: SupportCache,
        texts: TaskTexts,
        kept: KeptSupports,
    ) -> None:
        self.store = store
        self.engine = engine
        self.cache = cache
        self.texts = texts
        self.kept = kept
        self.encoding = Encoding(store=store, engine=engine, texts=texts, kept=kept)
        self.used: dict[str, float] = {}  # when tasks were used, unix time; `Warming` takes it
        self._records = RecordsAtHand(store)
        self.preparations: dict[str, Preparation] = {}  # of tasks that are getting ready
        self._improving: set[str] = set()
        self._undescribed: OrderedDict[str, str] = OrderedDict()
        self._background: dict[str, set[asyncio.Task[None]]] = {}

    async def prepare(
        self,
        record: TaskRecord,
        frames: Frames,
        preparation: Preparation,
        wait_s: float,
        credits: Credits,
    ) -> None:
        """Begin to encode a new task, and return when it is ready or `wait_s` are over.

        The credits go back when the work has ended, which may be later.
        """
        self.used[record.task_id] = time.time()
        self.preparations[record.task_id] = preparation
        work = self.start(
            record.task_id, self._prepare(record, frames, preparation, credits.tenant)
        )
        work.add_done_callback(lambda _: credits.give_back())
        await asyncio.wait({work}, timeout=wait_s)

    async def record(self, task_id: str) -> TaskRecord:
        """Return a task as it stands in the store, or as it last stood while the store is away."""
        try:
            return await self._records.get(task_id)
        except (TaskNotFoundError, TaskExpiredError):
            if task_id in self._records:  # another replica, or time, has ended it
                self.forget(task_id)
            raise

    def undescribed(self, task_id: str) -> str | None:
        """Say why the language model's text did not come; None when it did, or nobody asked."""
        return self._undescribed.get(task_id)

    async def get(
        self, record: TaskRecord, wait_s: float, deadline: Deadline | None = None
    ) -> EncodedSupport:
        """Return a task's encoded supports, rebuilt from its pictures if need be.

        A caller may be cut off while it waits; what is built goes on for the next one.

        Args:
            record: The task.
            wait_s: How long to wait for a task that is getting ready for the first time.
            deadline: Of the request; who would miss it by a rebuild is told at once.

        Raises:
            NotReadyError: It takes longer.
            DeadlineUnmetError: A rebuild takes longer than the deadline allows.
        """
        self.used[record.task_id] = time.time()
        key = self._key(record)
        if (support := self.cache.peek(key)) is not None:
            return support
        preparation = self.preparations.get(record.task_id)
        fresh = preparation is not None and not preparation.failed
        try:
            async with asyncio.timeout(wait_s if fresh else None):
                support = await self._in_time(record, deadline)
        except TimeoutError:
            raise NotReadyError(
                f"Task {record.task_id} is still getting ready; ask again.", retry_after_s=1
            ) from None
        if not fresh:
            self.preparations.pop(record.task_id, None)
            self._improve_later(record)
        return support

    async def warm(self, task_id: str) -> bool:
        """Get a task's supports ready before anybody asks; False where the cache has no room.

        Raises:
            KshotError: The task is gone, or cannot be encoded.
        """
        if (record := await self.record(task_id)).state != "decoded":
            return True
        key, size = self._key(record), self.engine.support_bytes([c.label for c in record.clips])
        if self.cache.peek(key) is not None:
            return True
        if self.cache.bytes + size > self.cache.max_bytes:
            return False
        await self.cache.get(key, lambda: self.encoding.again(record, WARMING))
        self.cache.age(key)
        return True

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
        self.preparations.pop(task_id, None)

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
        await self.kept.close()

    async def _in_time(self, record: TaskRecord, deadline: Deadline | None) -> EncodedSupport:
        """Wait for supports as long as they can still come in time."""
        built = spawn(self.cache.get(self._key(record), lambda: self.encoding.again(record)))
        try:
            while not (await asyncio.wait({built}, timeout=LOOK_S))[0]:
                if deadline is not None:
                    self.encoding.check(record, deadline)
            return built.result()
        finally:
            built.cancel()  # the build itself goes on

    async def _prepare(
        self, record: TaskRecord, frames: Frames, preparation: Preparation, tenant: str
    ) -> None:
        """Encode the frames that were stored; queries of the task join this one build."""

        def progress(done: int) -> None:
            preparation.encoded = done

        try:
            await self.cache.get(
                self._key(record),
                lambda: self.encoding.first(record, frames, progress, tenant),
            )
        except KshotError as error:
            log.error("Task %s could not be prepared: %s", record.task_id, error)
            preparation.failed = True
            return
        except BaseException:
            preparation.failed = True
            raise
        self.preparations.pop(record.task_id, None)
        self._improve_later(record)

    def _improve_later(self, record: TaskRecord) -> None:
        if self.texts.may_improve(record.labels) and record.task_id not in self._improving:
            self._improving.add(record.task_id)
            work = self.start(record.task_id, self._improve(record))
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
            self.kept.keep(newer, support)
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
            return await self.encoding.again(newer)
        if text_NAE is None:
            return None
        return older.with_text(text_NAE.to(older.classes.prototype_NTE.device))

    def start(self, task_id: str, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Do work for a task in the background, until it is done or the task is deleted."""
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
