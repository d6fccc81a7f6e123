"""The use cases around a task: register, get, list, delete."""

import asyncio
import contextlib
import logging
import os
import secrets
import threading
import time
from collections.abc import Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from model.errors import KshotError
from model.media.keeping import decode_pictures, encode_pictures
from model.media.sampling import Clip
from service.background import spawn
from service.decoding.pool import ClipRequest, DecodePool
from service.decoding.sandbox import NICENESS
from service.errors import ClipFault, PreparationError
from service.stores.protocol import TaskStore
from service.stores.records import ClipRecord, TaskRecord
from service.tasks.allowance import Allowance
from service.tasks.inputs import (
    ClipInput,
    NewLabel,
    NewTask,
    check_clips,
    decode_clips,
    digest,
    refuse_clips,
)
from service.tasks.supports import Supports
from service.tasks.texts import TaskTexts

log = logging.getLogger("kshot.tasks")


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
        self._undoing: set[asyncio.Task[None]] = set()
        self._keeper = ThreadPoolExecutor(1, "keeper", initializer=_go_last)

    async def register(
        self, task: NewTask, wait_s: float, allowance: Allowance
    ) -> tuple[TaskRecord, tuple[ClipFault, ...]]:
        """Make a task; when this returns, it is durable, and ready unless that took too long.

        Returns:
            The record, and the clips left out under `allow_partial`.

        Raises:
            RequestError: A clip cannot be used; nothing is stored.
            TaskTooLargeError: Its encoded supports do not fit the memory; nothing is stored.
            DeadlineError: The clips were not decoded in time; nothing is stored.
            PreparationError: The model failed; nothing stays stored.
        """
        clips, faults = await self._decode(task, allowance)
        record, frames = await asyncio.to_thread(_record, task, clips)
        self.supports.check_size(record)
        record = replace(record, labels=await self.texts.first(task.labels))
        loop, pictures = asyncio.get_running_loop(), {}
        for clip_id, clip_THWC in frames.items():  # one by one: whoever leaves leaves the rest
            keeping = loop.run_in_executor(self._keeper, _keep, clip_THWC)
            pictures[clip_id], frames[clip_id] = await keeping
        creating = spawn(self.store.create(record, pictures))
        try:
            await asyncio.shield(creating)
            preparation = await self.supports.prepare(
                record, frames, wait_s, allowance.credits.hand_over()
            )
        except asyncio.CancelledError:
            self._undo(creating, record.task_id)
            raise
        if preparation.failed:
            await self.delete(record.task_id)
            raise PreparationError("The model failed on the clips; nothing is stored, try again.")
        return record, tuple(faults)

    async def _decode(
        self, task: NewTask, allowance: Allowance
    ) -> tuple[Mapping[int, Clip], list[ClipFault]]:
        """Read the headers of all clips, then decode those that may be used.

        Returns:
            Clips by their place in the request, and the ones that cannot be used.

        Raises:
            ClipsRefusedError: What is left is no task.
            DeadlineError: It took too long.
        """
        labels = {clip.index: label.label for label in task.labels for clip in label.clips}
        inputs = [clip for label in task.labels for clip in label.clips]
        async with allowance.deadline.bounding("decoding"):
            faults = await check_clips(self.pool, inputs, "register", labels)
            refused = {fault.index for fault in faults}
            sound = [clip for clip in inputs if clip.index not in refused]
            _check_left(task, {clip.index for clip in sound}, faults)  # before any is decoded
            clips, late = await decode_clips(self.pool, sound, "register", labels)
            faults = sorted([*faults, *late], key=lambda fault: fault.index)
        allowance.credits.correct(decode_ms=0, frames=len(clips) * self.pool.frames)
        _check_left(task, clips.keys(), faults)
        return clips, faults

    async def get(self, task_id: str) -> TaskRecord:
        """Return a task as it stands in the store."""
        return await self.store.get(task_id)

    async def page(self, limit: int, cursor: str | None) -> tuple[list[TaskRecord], str | None]:
        """Return tasks, newest first, and the cursor of the next page."""
        return await self.store.list(limit=limit, cursor=cursor)

    async def delete(self, task_id: str) -> None:
        """Remove a task and all that is derived from it; that it is gone already is fine."""
        self.supports.end_work(task_id)
        await self.store.delete(task_id)
        self.supports.forget(task_id)

    async def close(self) -> None:
        """Remove what clients that left were never told of."""
        await asyncio.gather(*self._undoing, return_exceptions=True)
        self._keeper.shutdown(wait=False)

    def _undo(self, creating: "asyncio.Task[None]", task_id: str) -> None:
        """Remove a task whose client left before it was told of it."""

        async def undo() -> None:
            try:
                await creating
                await self.delete(task_id)
            except KshotError as error:
                log.warning("Task %s, which nobody knows, may stay: %s", task_id, error)

        work = spawn(undo())
        self._undoing.add(work)
        work.add_done_callback(self._undoing.discard)


def _check_left(task: NewTask, clips: Set[int], faults: list[ClipFault]) -> None:
    if not faults:
        return
    total = len(clips) + len(faults)
    if not task.allow_partial:
        raise refuse_clips(faults, total, "; correct it, or set allow_partial to leave it out")
    for label in task.labels:
        if not any(clip.index in clips for clip in label.clips):
            raise refuse_clips(faults, total, f"; label {label.label!r} keeps no clip")


def _record(task: NewTask, clips: Mapping[int, Clip]) -> tuple[TaskRecord, dict[str, np.ndarray]]:
    """Make the record of a task, still without its text, and the frames of its clips."""
    records: list[ClipRecord] = []
    frames: dict[str, np.ndarray] = {}
    for place, label in enumerate(task.labels):
        for given, clip, source in _usable(label, clips):
            frames[given.clip_id] = clip.frames_THWC
            records.append(
                ClipRecord(
                    clip_id=given.clip_id,
                    name=given.name,
                    index=given.index,
                    label=place,
                    frames_s=tuple(max(0.0, float(time_s)) for time_s in clip.times_s),
                    duration_s=float(clip.duration_s),
                    codec=clip.codec,
                    distinct=clip.distinct,
                    sha256=digest(source),
                    warnings=clip.warnings,
                )
            )
    now = time.time()
    record = TaskRecord(
        task_id=secrets.token_hex(16),
        name=task.name,
        created_at=now,
        expires_at=None if task.ttl_s is None else now + task.ttl_s,
        labels=(),
        clips=tuple(records),
    )
    return record, frames


def _keep(frames_THWC: np.ndarray) -> tuple[tuple[bytes, ...], np.ndarray]:
    """Return what is stored of a clip, and what a rebuild will read of it.

    The first encoding then starts from the pixels that each later one starts from.
    """
    pictures = encode_pictures(frames_THWC)
    return pictures, decode_pictures(pictures)


def _go_last() -> None:
    """Let everything else in the process go before this thread."""
    with contextlib.suppress(OSError):  # only on Linux has a thread a priority of its own
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


def _usable(
    label: NewLabel, clips: Mapping[int, Clip]
) -> list[tuple[ClipInput, Clip, ClipRequest]]:
    return [
        (clip, clips[clip.index], clip.source)
        for clip in label.clips
        if clip.index in clips and isinstance(clip.source, ClipRequest)
    ]
