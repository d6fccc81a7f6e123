"""The use cases around a task: register, get, list, delete."""

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import replace

from model.errors import KshotError
from service.background import spawn
from service.decoding.pool import ClipRequest, DecodePool
from service.errors import PreparationError
from service.limits import Limits
from service.stores.errors import RevisionConflictError, TaskExpiredError, TaskNotFoundError
from service.stores.protocol import Pictures, TaskStore
from service.stores.records import TaskRecord, new_id
from service.tasks import uploads
from service.tasks.allowance import Allowance
from service.tasks.arrivals import Arrivals, Decoded
from service.tasks.changes.edits import Revisions, check_revision, stale
from service.tasks.encoding import Preparation
from service.tasks.inputs import ClipInput, NewTask, check_clips
from service.tasks.quota.keeper import asked_of, keeping
from service.tasks.supports import Supports
from service.tasks.texts import TaskTexts

log = logging.getLogger("kshot.tasks")


class Tasks:
    """Registers tasks and gives them back.

    Args:
        store: Where tasks are safe.
        pool: Reads untrusted clips.
        arrivals: Decodes them.
        supports: What is derived from them.
        texts: The tasks' words.
        limits: How long a request waits, and what is stored before it is decoded.
    """

    def __init__(
        self,
        *,
        store: TaskStore,
        pool: DecodePool,
        arrivals: Arrivals,
        supports: Supports,
        texts: TaskTexts,
        limits: Limits,
    ) -> None:
        self.store = store
        self.pool = pool
        self.arrivals = arrivals
        self.supports = supports
        self.texts = texts
        self.limits = limits
        self._undoing: set[asyncio.Task[None]] = set()

    async def register(
        self, task: NewTask, wait_s: float | None, allowance: Allowance
    ) -> TaskRecord:
        """Make a task; when this returns, it is durable, and ready unless that took too long.

        Args:
            task: What was sent.
            wait_s: How long to wait for the task to be ready, though its clips be not decoded by
                then; None waits until they are, and then as long as usual.
            allowance: Its deadline bounds decoding, as far as that is waited for.

        Raises:
            RequestError: A clip cannot be used; nothing is stored.
            TaskTooLargeError: Its encoded supports do not fit the memory; nothing is stored.
            DeadlineError: The clips were not decoded in time; nothing is stored.
            PreparationError: The model failed; nothing stays stored.
        """
        begun = time.monotonic()
        async with allowance.deadline.bounding("decoding"):
            record, inputs = await self._checked(task, allowance)
        self.supports.check_size(record)
        record = replace(record, labels=await self.texts.first(task.labels, allowance.owner))
        await self.texts.check_clipless(record)
        preparation = Preparation(len(inputs))
        decoding = spawn(self.arrivals.decode(record, inputs, preparation))
        try:
            async with allowance.deadline.bounding("decoding"):
                patience_s = wait_s if self._storable(inputs) else None
                await asyncio.wait({decoding}, timeout=patience_s)
            if not decoding.done():
                await self._create(record, uploads.parts_of(inputs), allowance)
                credits = allowance.credits.hand_over(whole=True)
                self.arrivals.follow(record, decoding, preparation, credits, allowance.purse)
                return record
        except BaseException:
            decoding.cancel()
            raise
        left_s = self.limits.wait_s if wait_s is None else wait_s + begun - time.monotonic()
        return await self.prepared(decoding.result(), preparation, max(0.0, left_s), allowance)

    async def _checked(
        self, task: NewTask, allowance: Allowance
    ) -> tuple[TaskRecord, list[ClipInput]]:
        """Read the headers of all clips; return the record, and the clips that may be used.

        Raises:
            ClipsRefusedError: What is left is no task.
            RequestError: It is more than its tenant may ask for.
        """
        task_id = allowance.seed or new_id(allowance.owner)
        labels = {clip.index: label.label for label in task.labels for clip in label.clips}
        inputs = [clip for label in task.labels for clip in label.clips]
        record = await asyncio.to_thread(uploads.uploaded, task, task_id)
        seconds, faults = await check_clips(self.pool, inputs, "register", labels, allowance.owner)
        refused = {fault.index for fault in faults}
        sound = [clip for clip in inputs if clip.index not in refused]
        record = uploads.without(record, faults)
        if allowance.purse is not None:
            frames = self.pool.frames * len(sound)
            await allowance.purse.charge(asked_of(seconds, frames, tasks=1))
        return record, sound

    async def prepared(
        self, done: Decoded, preparation: Preparation, wait_s: float, allowance: Allowance
    ) -> TaskRecord:
        """Store a task that is decoded, and encode it."""
        record, credits = done.record, allowance.credits
        credits.correct(decode_ms=0, frames=len(done.frames) * self.pool.frames)
        await self._create(record, done.pictures, allowance)
        try:
            await self.supports.prepare(
                record, done.frames, preparation, wait_s, credits.hand_over()
            )
        except asyncio.CancelledError:
            self._undo(record.task_id, allowance)
            raise
        if preparation.failed:
            await self.delete(record.task_id)
            raise PreparationError("The model failed on the clips; nothing is stored, try again.")
        return record

    async def _create(self, record: TaskRecord, kept: Pictures, allowance: Allowance) -> None:
        """Make a task durable; it goes again when its client leaves meanwhile."""
        try:
            with keeping(allowance.purse) as usual:
                creating = spawn(self.store.create(record, kept, usual))
                await asyncio.shield(creating)
        except asyncio.CancelledError:
            self._undo(record.task_id, allowance, creating)
            raise

    def _storable(self, inputs: Sequence[ClipInput]) -> bool:
        """Tell whether uploads are small enough to be stored until they are decoded."""
        sources = [clip.source for clip in inputs if isinstance(clip.source, ClipRequest)]
        return sum(source.size for source in sources) <= self.limits.stored_upload_bytes

    async def get(self, task_id: str) -> TaskRecord:
        """Return a task as it stands in the store."""
        return await self.store.get(task_id)

    async def get_decoded(self, task_id: str) -> TaskRecord:
        """Return a task whose clips are decoded.

        Raises:
            NotReadyError: They are not yet; TaskFailedError: they never will be.
        """
        return await self.arrivals.settled(await self.store.get(task_id), 0.0)

    async def page(
        self, limit: int, cursor: str | None, owner: str
    ) -> tuple[list[TaskRecord], str | None]:
        """Return tasks of a tenant, newest first, and the cursor of the next page."""
        return await self.store.list(limit=limit, cursor=cursor, owner=owner)

    async def delete(self, task_id: str, expected: Revisions | None = None) -> None:
        """Remove a task and all that is derived from it; that it is gone already is fine.

        Raises:
            RevisionStaleError: It is at another revision than those that are expected.
        """
        revision = None
        if expected is not None:
            try:
                record = await self.store.get(task_id)
            except (TaskNotFoundError, TaskExpiredError):
                return
            check_revision(record, expected)
            revision = record.revision
        self.supports.end_work(task_id)
        try:
            await self.store.delete(task_id, expected_revision=revision)
        except RevisionConflictError as conflict:
            raise stale(conflict.stored or 0, expected) from conflict
        self.supports.forget(task_id)

    async def close(self) -> None:
        """Remove what clients that left were never told of."""
        await asyncio.gather(*self._undoing, return_exceptions=True)

    def _undo(
        self,
        task_id: str,
        allowance: Allowance,
        creating: "asyncio.Task[None] | None" = None,
    ) -> None:
        """Remove a task whose client left before it was told of it, unless it may ask again."""
        if allowance.seed is not None:
            return

        async def undo() -> None:
            try:
                if creating is not None:
                    await creating
                await self.delete(task_id)
            except KshotError as error:
                log.warning("Task %s, which nobody knows, may stay: %s", task_id, error)

        work = spawn(undo())
        self._undoing.add(work)
        work.add_done_callback(self._undoing.discard)
