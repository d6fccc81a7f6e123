"""The use cases around a task: register, get, list, delete."""

import asyncio
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from model.errors import KshotError
from model.media.pictures import encode_pictures
from model.media.sampling import Clip
from service.decoding.pool import ClipRequest, DecodePool
from service.errors import ClipFault, PreparationError
from service.http.tickets import Ticket
from service.stores.errors import StoreUnavailableError
from service.stores.protocol import TaskStore
from service.stores.records import ClipRecord, TaskRecord
from service.tasks.clips import decode_clips, digest, refuse_clips
from service.tasks.drafts import LabelDraft, TaskDraft
from service.tasks.supports import Supports
from service.tasks.texts import TaskTexts

log = logging.getLogger("kshot.tasks")

REMEMBERED = 1000  # tasks that still classify while the store is away


class Tasks:
    """Registers tasks and gives them back.

    Args:
        store: Where tasks are safe.
        pool: Reads untrusted clips.
        supports: What is derived from them.
        texts: The tasks' words.
    """

    def __init__(
        self, *, store: TaskStore, pool: DecodePool, supports: Supports, texts: TaskTexts
    ) -> None:
        self.store = store
        self.pool = pool
        self.supports = supports
        self.texts = texts
        self._remembered: OrderedDict[str, TaskRecord] = OrderedDict()
        self._undoing: set[asyncio.Task[None]] = set()

    async def register(
        self, draft: TaskDraft, wait_s: float, ticket: Ticket
    ) -> tuple[TaskRecord, tuple[ClipFault, ...]]:
        """Make a task; when this returns, it is durable, and ready unless that took too long.

        The deadline of the ticket bounds decoding; encoding goes on behind the answer.

        Returns:
            The record, and the clips left out under `allow_partial`.

        Raises:
            RequestError: A clip cannot be used; nothing is stored.
            DeadlineError: The clips were not decoded in time; nothing is stored.
            PreparationError: The model failed; nothing stays stored.
        """
        labels = {clip.index: label.label for label in draft.labels for clip in label.clips}
        drafts = [clip for label in draft.labels for clip in label.clips]
        async with ticket.deadline.bounding("decoding"):
            clips, faults = await decode_clips(self.pool, drafts, labels)
        ticket.hold.correct(decode_ms=0, frames=len(clips) * self.pool.frames)
        _check_left(draft, clips, faults)
        record, frames = await asyncio.to_thread(_record, draft, clips)
        self.supports.check_size(record)
        record = replace(record, labels=await self.texts.first(draft.labels))
        pictures = await asyncio.to_thread(
            lambda: {clip_id: encode_pictures(clip) for clip_id, clip in frames.items()}
        )
        creating = asyncio.create_task(self.store.create(record, pictures))
        try:
            await asyncio.shield(creating)
            preparation = await self.supports.prepare(
                record, frames, wait_s, ticket.hold.hand_over()
            )
        except asyncio.CancelledError:
            self._undo(creating, record.task_id)
            raise
        if preparation.failed:
            await self.delete(record.task_id)
            raise PreparationError("The model failed on the clips; nothing is stored, try again.")
        return record, tuple(faults)

    async def get(self, task_id: str) -> TaskRecord:
        """Return a task as it stands in the store."""
        return await self.store.get(task_id)

    async def get_for_queries(self, task_id: str) -> TaskRecord:
        """Return a task as it stands in the store, or as it last stood while the store is away."""
        try:
            record = await self.store.get(task_id)
        except StoreUnavailableError:
            remembered = self._remembered.get(task_id)
            if remembered is None or remembered.expired(time.time()):
                raise
            return remembered
        self._remembered[task_id] = record
        self._remembered.move_to_end(task_id)
        if len(self._remembered) > REMEMBERED:
            self._remembered.popitem(last=False)
        return record

    async def page(self, limit: int, cursor: str | None) -> tuple[list[TaskRecord], str | None]:
        """Return tasks, newest first, and the cursor of the next page."""
        return await self.store.list(limit=limit, cursor=cursor)

    async def delete(self, task_id: str) -> None:
        """Remove a task and all that is derived from it; that it is gone already is fine."""
        self.supports.end_work(task_id)
        self._remembered.pop(task_id, None)
        await self.store.delete(task_id)
        self.supports.forget(task_id)

    def _undo(self, creating: "asyncio.Task[None]", task_id: str) -> None:
        """Remove a task whose client left before it was told of it."""

        async def undo() -> None:
            try:
                await creating
                await self.delete(task_id)
            except KshotError as error:
                log.warning("Task %s, which nobody knows, may stay: %s", task_id, error)

        work = asyncio.create_task(undo())
        self._undoing.add(work)
        work.add_done_callback(self._undoing.discard)


def _check_left(draft: TaskDraft, clips: Mapping[int, Clip], faults: list[ClipFault]) -> None:
    if not faults:
        return
    total = len(clips) + len(faults)
    if not draft.allow_partial:
        raise refuse_clips(faults, total, "; correct it, or set allow_partial to leave it out")
    for label in draft.labels:
        if not any(clip.index in clips for clip in label.clips):
            raise refuse_clips(faults, total, f"; label {label.label!r} keeps no clip")


def _record(
    draft: TaskDraft, clips: Mapping[int, Clip]
) -> tuple[TaskRecord, dict[str, np.ndarray]]:
    """Make the record of a task, still without its text, and the frames of its clips."""
    records: list[ClipRecord] = []
    frames: dict[str, np.ndarray] = {}
    for place, label in enumerate(draft.labels):
        for clip, source in _usable(label, clips):
            clip_id = f"c{len(records):04d}"
            frames[clip_id] = clip.frames_THWC
            records.append(
                ClipRecord(
                    clip_id=clip_id,
                    label=place,
                    frames_s=tuple(max(0.0, float(time_s)) for time_s in clip.times_s),
                    duration_s=float(clip.duration_s),
                    codec=clip.codec,
                    distinct=clip.distinct,
                    sha256=digest(source),
                )
            )
    now = time.time()
    record = TaskRecord(
        task_id=secrets.token_hex(16),
        name=draft.name,
        created_at=now,
        expires_at=None if draft.ttl_s is None else now + draft.ttl_s,
        labels=(),
        clips=tuple(records),
    )
    return record, frames


def _usable(label: LabelDraft, clips: Mapping[int, Clip]) -> list[tuple[Clip, ClipRequest]]:
    return [
        (clips[draft.index], draft.source)
        for draft in label.clips
        if draft.index in clips and isinstance(draft.source, ClipRequest)
    ]
