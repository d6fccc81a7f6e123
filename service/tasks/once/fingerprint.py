"""What a request asks for, in 32 bytes: equal however its body was written.

Boundaries, the place of text fields, and JSON or multipart make no difference; the bytes, names and
order of clips do. Clips are hashed where they lie. The name of the request, made of its key, goes
in, so that what is kept cannot be compared with what others sent.
"""

import hashlib
import json
from collections.abc import Sequence

from service.decoding.pool import ClipRequest
from service.tasks.inputs import ClipInput, NewLabel, NewTask, digest


def of_task(name: str, task: NewTask) -> str:
    """Return the fingerprint of a new task.

    Args:
        name: Of the request, with its key in it.
        task: What was sent.
    """
    labels = [_label(label) for label in task.labels]
    return of_values(name, [task.name, task.ttl_s, task.allow_partial, labels])


def of_label(name: str, label: NewLabel, *, allow_partial: bool) -> str:
    """Return the fingerprint of clips that a label gets."""
    return of_values(name, [allow_partial, _label(label)])


def of_bytes(name: str, content: bytes) -> str:
    """Return the fingerprint of a file."""
    return of_values(name, [hashlib.sha256(content).hexdigest()])


def of_values(name: str, values: Sequence[object]) -> str:
    """Return the fingerprint of values that JSON can have."""
    return hashlib.sha256(json.dumps([name, values]).encode()).hexdigest()


def _label(label: NewLabel) -> list[object]:
    stages = None if label.stages is None else list(label.stages)
    return [label.label, stages, [_clip(clip) for clip in label.clips]]


def _clip(clip: ClipInput) -> list[object]:
    source = clip.source
    if not isinstance(source, ClipRequest):  # refused as it was read; its size is in the sentence
        return [clip.index, clip.name, source.code, str(source)]
    kind = "pictures" if source.video is None else "video"
    return [clip.index, clip.name, kind, digest(source), source.start_s, source.end_s]
