"""A task between its upload and its pictures: its record, and its clips as they are stored."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from model.errors import ClipError
from model.media.sampling import Clip
from service.decoding.pool import ClipRequest
from service.errors import ClipFault
from service.stores.records import ClipRecord, RefusedClip, TaskRecord
from service.tasks.inputs import ClipInput, NewTask, digest, refuse_clips

FAILED_S = 24 * 3600.0  # how long a task that failed says so


def uploaded(task: NewTask, task_id: str) -> TaskRecord:
    """Make the record of a task, still without its text and without what its clips contain."""
    now = time.time()
    return TaskRecord(
        task_id=task_id,
        name=task.name,
        created_at=now,
        expires_at=None if task.ttl_s is None else now + task.ttl_s,
        labels=(),
        clips=tuple(
            _uploaded(clip, place)
            for place, label in enumerate(task.labels)
            for clip in label.clips
        ),
        state="uploaded",
        allow_partial=task.allow_partial,
        inbox=task.inbox,
    )


def without(record: TaskRecord, faults: Sequence[ClipFault]) -> TaskRecord:
    """Leave out the clips of a task that cannot be used.

    Raises:
        ClipsRefusedError: It may not do without them, or a label keeps no clip.
    """
    if not faults:
        return record
    total = len(record.clips) + len(record.refused)
    if not record.allow_partial:
        raise refuse_clips(faults, total, "; correct it, or set allow_partial to leave it out")
    at_fault = {fault.index: fault for fault in faults}
    kept = tuple(clip for clip in record.clips if clip.index not in at_fault)
    labels = {clip.label for clip in kept}
    for clip in record.clips:
        if clip.label not in labels and clip.index is not None:
            label = at_fault[clip.index].label
            raise refuse_clips(faults, total, f"; label {label!r} keeps no clip")
    return replace(record, clips=kept, refused=_in_order(record, faults))


def decoded(record: TaskRecord, clips: Mapping[int, Clip]) -> TaskRecord:
    """Write into an uploaded task what its clips contain, by their place in the request."""
    filled = tuple(
        replace(
            clip,
            frames_s=tuple(max(0.0, float(time_s)) for time_s in clips[clip.index].times_s),
            duration_s=float(clips[clip.index].duration_s),
            codec=clips[clip.index].codec,
            distinct=clips[clip.index].distinct,
            warnings=clips[clip.index].warnings,
        )
        for clip in record.clips
        if clip.index is not None
    )
    return replace(record, clips=filled, state="decoded")


def failed(record: TaskRecord, why: str, faults: Sequence[ClipFault]) -> TaskRecord:
    """Say in an uploaded task why it will never be ready; nobody needs it for longer than a day."""
    expires_at = min(record.expires_at or float("inf"), time.time() + FAILED_S)
    return replace(
        record,
        clips=(),
        state="failed",
        expires_at=expires_at,
        refused=_in_order(record, faults),
        failure=why,
    )


def parts_of(inputs: Sequence[ClipInput]) -> dict[str, tuple[bytes, ...]]:
    """Return uploads as they are stored, by id: how each is to be read, and its bytes."""
    return {
        clip.clip_id: _parts(clip.source) for clip in inputs if isinstance(clip.source, ClipRequest)
    }


def _parts(clip: ClipRequest) -> tuple[bytes, ...]:
    span = {"video": clip.video is not None, "start_s": clip.start_s, "end_s": clip.end_s}
    blobs = clip.pictures if clip.video is None else (clip.video,)
    return json.dumps(span).encode(), *blobs


def inputs_of(record: TaskRecord, stored: Mapping[str, tuple[bytes, ...]]) -> list[ClipInput]:
    """Return the clips of an uploaded task as they came with the request."""
    return [
        ClipInput(clip.index, _of_parts(stored[clip.clip_id]), clip.name)
        for clip in record.clips
        if clip.index is not None
    ]


def _of_parts(parts: tuple[bytes, ...]) -> ClipRequest:
    header, *blobs = parts
    span = json.loads(header)
    if span.pop("video"):
        return ClipRequest(video=blobs[0], **span)
    return ClipRequest(video=None, pictures=tuple(blobs), **span)


def _uploaded(clip: ClipInput, label: int) -> ClipRecord:
    return ClipRecord(
        clip_id=clip.clip_id,
        name=clip.name,
        index=clip.index,
        label=label,
        frames_s=(),
        duration_s=0.0,
        codec="",
        distinct=0,
        sha256="" if isinstance(clip.source, ClipError) else digest(clip.source),
    )


def _in_order(record: TaskRecord, faults: Sequence[ClipFault]) -> tuple[RefusedClip, ...]:
    """Return the clips refused so far and these."""
    new = [
        RefusedClip(
            index=fault.index,
            name=fault.name,
            label=fault.label,
            code=fault.error.code,
            detail=str(fault.error),
        )
        for fault in faults
    ]
    return tuple(sorted([*record.refused, *new], key=lambda clip: clip.index))
