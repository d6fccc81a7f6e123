"""The use cases of taking a task out as a file, and in again, here or elsewhere."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace

from service.decoding.pool import ClipRequest
from service.stores.errors import StoreError
from service.stores.records import ClipRecord, LabelRecord, TaskRecord, new_id, owner_of
from service.tasks.allowance import Allowance
from service.tasks.encoding import Preparation
from service.tasks.inputs import ClipInput, NewLabel, NewTask, check_clips, check_task, refuse_clips
from service.tasks.portable import archive, queries
from service.tasks.portable.archive import Exported
from service.tasks.portable.queries import fitting
from service.tasks.quota.keeper import asked_of
from service.tasks.register import Tasks


class Porter:
    """Exports and imports tasks.

    Args:
        tasks: Where they are registered.
        keep_s: How long remembered queries are kept.
    """

    def __init__(self, tasks: Tasks, keep_s: float) -> None:
        self.tasks = tasks
        self.engine = tasks.supports.engine
        self.keep_s = keep_s

    async def export(self, task_id: str, *, remembered: bool = False) -> tuple[TaskRecord, bytes]:
        """Return a task and its file; a deleted one raises what the store raises.

        Args:
            task_id: The task.
            remembered: Whether queries that it remembers go with it.

        Raises:
            NotReadyError: Its clips are still being decoded.
        """
        while True:
            record = await self.tasks.get_decoded(task_id)
            clips = [clip.clip_id for clip in record.clips]
            pictures = await self.tasks.store.pictures(task_id, clips)
            if len(pictures) == len(clips):  # else it has changed meanwhile
                break
        model = self.engine.model
        about = {
            "name": model.name,
            "revision": model.fingerprint,
            "frames": model.frames,
            "size": model.size,
        }
        held = await queries.remembered(self.tasks.store, record) if remembered else []
        return record, await asyncio.to_thread(archive.write, record, pictures, about, held)

    async def take_in(self, content: bytes, wait_s: float, allowance: Allowance) -> TaskRecord:
        """Make a new task of a file; when this returns, it is durable.

        Its pictures are untrusted: they pass a sandboxed decoder, which also makes them as large
        and as many as this checkpoint takes, and are kept anew.

        Raises:
            ExportForeignError, ExportNewerError, ExportDamagedError: No task can be read.
            RequestError: The task does not fit the limits, or a picture cannot be used.
        """
        found = await asyncio.to_thread(archive.read, content)
        record, inputs = self._new(found, allowance.seed or new_id(allowance.owner))
        self.tasks.supports.check_size(record)
        labels = {
            clip.index: record.labels[clip.label].label
            for clip in record.clips
            if clip.index is not None
        }
        preparation, pool = Preparation(len(inputs)), self.tasks.pool
        async with allowance.deadline.bounding("decoding"):
            record = replace(record, labels=await self._labels(record))
            _, faults = await check_clips(pool, inputs, "register", labels, allowance.owner)
            if faults:
                raise refuse_clips(faults, len(inputs))
            if (purse := allowance.purse) is not None:  # pictures are no seconds of video
                await purse.charge(asked_of(0.0, self.tasks.pool.frames * len(inputs), tasks=1))
            done = await self.tasks.arrivals.decode(record, inputs, preparation)
            bounds = self.tasks.limits.pictures
            held = await queries.decoded(self.tasks.pool, found.queries, bounds, len(inputs))
        pairs = zip(done.record.clips, found.record.clips, strict=True)
        clips = tuple(_as_it_was(now, old, len(found.pictures[old.clip_id])) for now, old in pairs)
        done = replace(done, record=replace(done.record, clips=clips))
        record = await self.tasks.prepared(done, preparation, wait_s, allowance)
        try:
            await queries.keep(self.tasks.store, record, held, self.keep_s)
        except StoreError:
            await self.tasks.delete(record.task_id)  # whole or not at all
            raise
        return record

    def _new(self, found: Exported, task_id: str) -> tuple[TaskRecord, list[ClipInput]]:
        """Return the record of a new task, and its clips as they are to be decoded."""
        old = found.record
        inputs = [
            ClipInput(
                place,
                ClipRequest(
                    video=None,
                    pictures=fitting(found.pictures[clip.clip_id], self.tasks.limits.pictures),
                ),
                clip.name,
            )
            for place, clip in enumerate(old.clips)
        ]
        check_task(_asked(old, inputs), self.tasks.limits)
        clips = tuple(replace(clip, index=place) for place, clip in enumerate(old.clips))
        record = replace(
            old,
            task_id=task_id,
            created_at=time.time(),
            expires_at=None,
            revision=1,
            clips=clips,
            state="uploaded",
            refused=(),
        )
        return record, inputs

    async def _labels(self, record: TaskRecord) -> tuple[LabelRecord, ...]:
        """Keep sentences as far as this checkpoint reads as many."""
        wanted, owner = self.engine.model.stages, owner_of(record.task_id)
        return tuple(
            [
                label
                if len(label.stages) == wanted
                else (await self.tasks.texts.first([NewLabel(label.label, None, ())], owner))[0]
                for label in record.labels
            ]
        )


def _asked(old: TaskRecord, inputs: Sequence[ClipInput]) -> NewTask:
    """Return what a client would have asked for."""
    labels = [
        NewLabel(
            label.label,
            None,
            tuple(
                clip for clip, known in zip(inputs, old.clips, strict=True) if known.label == place
            ),
        )
        for place, label in enumerate(old.labels)
    ]
    return NewTask(name=old.name, ttl_s=None, allow_partial=False, labels=tuple(labels))


def _as_it_was(clip: ClipRecord, old: ClipRecord, pictures: int) -> ClipRecord:
    """Say of a clip what is known from when it was uploaded; its pictures may be others now."""
    same = len(clip.frames_s) == len(old.frames_s)
    return replace(
        old,
        index=clip.index,
        motion=clip.motion,
        frames_s=old.frames_s if same else clip.frames_s,
        distinct=old.distinct if same else min(clip.distinct, pictures),
        warnings=tuple(dict.fromkeys((*old.warnings, *clip.warnings))),
    )
