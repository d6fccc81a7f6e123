"""Encoded supports of tasks: made at registration, cached, rebuilt from stored pictures."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager

from model.episode import EncodedSupport
from model.errors import KshotError
from service.background import spawn
from service.engine.engine import Engine
from service.engine.support_cache import Build, SupportCache, SupportKey
from service.errors import LabelWithoutClipsError, NotReadyError
from service.stores.errors import RevisionConflictError, TaskExpiredError, TaskNotFoundError
from service.stores.protocol import TaskStore
from service.stores.records import TaskRecord
from service.tasks.allowance import Credits, Deadline
from service.tasks.changes.improving import Improving
from service.tasks.encoding import Encoding, Frames, Preparation
from service.tasks.kept_supports import KeptSupports
from service.tasks.records_at_hand import RecordsAtHand
from service.tasks.texts import TaskTexts

LOOK_S = 0.1  # between two looks at whether a rebuild is done in time
WARMING = "warming"  # a tenant of its own, so that it takes turns with rebuilds that are waited for

log = logging.getLogger("kshot.tasks")


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
        self.encoding = Encoding(
            store=store, engine=engine, texts=texts, kept=kept, newest=cache.newest
        )
        self.used: dict[str, float] = {}  # when tasks were used, unix time; `Warming` takes it
        self._records = RecordsAtHand(store)
        self.ready: Callable[[TaskRecord, float], None] = lambda *_: None  # told the seconds
        self.preparations: dict[str, Preparation] = {}  # of tasks that are getting ready
        self._background: dict[str, set[asyncio.Task[None]]] = {}
        self.improving = Improving(
            store=store, texts=texts, cache=cache, encoding=self.encoding, start=self.start
        )

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

        def progress(done: int) -> None:
            preparation.encoded = done

        tenant = credits.tenant
        await self.changed(
            record,
            lambda: self.encoding.first(record, frames, progress, tenant),
            preparation,
            wait_s,
            credits,
        )

    async def changed(
        self,
        record: TaskRecord,
        build: Build,
        preparation: Preparation,
        wait_s: float,
        credits: Credits,
    ) -> None:
        """Begin to encode a revision, and return when it is ready or `wait_s` are over."""
        self._records.note(record)
        self.used[record.task_id] = time.time()
        self.preparations[record.task_id] = preparation
        work = self.start(record.task_id, self._prepare(record, build, preparation))
        work.add_done_callback(lambda _: credits.give_back())
        await asyncio.wait({work}, timeout=wait_s)

    async def recall(self, record: TaskRecord) -> None:
        """Have a task's supports at hand that the store has kept, before a change drops them."""
        if self.cache.newest(record.task_id) is None:
            support = await self.kept.read(record)
            if support is not None:
                self.cache.put(self._key(record), support)

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
        return self.improving.undescribed.get(task_id)

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
            RevisionConflictError: The task has changed, and clips of this revision are gone.
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
            self.cache.forget(record.task_id, below_revision=record.revision)
            self.improving.later(record)
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

    async def encoded(self, task_id: str) -> int:
        """Have supports encoded where there is room, at hand or stored; returns the revision.

        Raises:
            KshotError: The task is gone, or cannot be encoded.
        """
        if not await self.warm(task_id):
            record = await self.record(task_id)
            labels = [clip.label for clip in record.clips]
            if not labels or self.engine.support_bytes(labels) <= self.kept.most_bytes:
                await self.encoding.again(record, WARMING)  # which tells whether labels alone do
        return (await self.record(task_id)).revision

    def pinned(self, record: TaskRecord) -> AbstractContextManager[None]:
        """Keep a task's encoded supports in the cache during the context, once they are there."""
        return self.cache.pinned(self._key(record))

    def check_size(self, record: TaskRecord) -> None:
        """Refuse a task whose encoded supports do not fit the budget.

        Raises:
            LabelWithoutClipsError: Some of its labels have clips, and some have none.
        """
        shown = {clip.label for clip in record.clips}
        bare = [label.label for n, label in enumerate(record.labels) if n not in shown]
        if shown and bare:
            raise LabelWithoutClipsError(
                f"Label {bare[0]!r} of the task has no clip, so that no label can get any; "
                "register a new task with clips of each."
            )
        self.engine.check_size([clip.label for clip in record.clips])

    def unprepared(self, task_id: str, preparation: Preparation) -> None:
        """Show a task as ready, unless something else of it is being prepared."""
        if self.preparations.get(task_id) is preparation:
            del self.preparations[task_id]

    def busy(self, task_id: str) -> bool:
        """Tell whether something is done for a task, or getting ready."""
        preparation = self.preparations.get(task_id)
        return task_id in self._background or (preparation is not None and not preparation.failed)

    @property
    def idle(self) -> bool:
        """Whether nothing is done for any task."""
        return not self._background

    def end_work(self, task_id: str) -> None:
        """Stop what runs for a task in the background, and answer no more queries of it."""
        self._records.forget(task_id)
        self.improving.undescribed.pop(task_id, None)
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

    async def _prepare(self, record: TaskRecord, build: Build, preparation: Preparation) -> None:
        """Encode a revision; queries of it join this one build."""
        task_id = record.task_id
        try:
            await self.cache.get(self._key(record), build)
        except RevisionConflictError:  # it has been changed again, and that is encoded then
            self.unprepared(task_id, preparation)
            return
        except KshotError as error:
            log.error("Task %s could not be prepared: %s", task_id, error)
            preparation.failed = True
            return
        except BaseException:
            preparation.failed = True
            raise
        self.ready(record, time.monotonic() - preparation.begun)
        self.unprepared(task_id, preparation)
        self.cache.forget(task_id, below_revision=record.revision)
        self.improving.later(record)

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
