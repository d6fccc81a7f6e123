"""Parts that requests have in common: paths, headers, forms of clips."""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import quote

from kshot_client.calls import Form
from kshot_client.uploads import AnyClip, Clip, Progress, Upload, clip_of

LONG_S = 60.0  # sixteen clips may take a small machine that long
BYTES = "clip"  # the name of bytes that came without one


def task_path(task_id: str, *parts: str) -> str:
    """Return the path of a task, or of something that it has."""
    return "/".join(("/v1/tasks", *(quote(part, safe="") for part in (task_id, *parts))))


def headers_of(
    *,
    wait: bool | None = None,
    deadline_s: float | None = None,
    if_revision: int | None = None,
    key: str | None = None,
) -> dict[str, str]:
    """Write headers; None leaves one out.

    Args:
        wait: Whether the service shall wait for the task to be ready, as it does by itself.
        deadline_s: How long it may take.
        if_revision: The one revision that a change is meant for.
        key: Of a request that creates: sent twice, it creates once.
    """
    written = {} if wait is None or wait else {"Prefer": "respond-async"}
    if deadline_s is not None:
        written["X-Request-Timeout-Ms"] = str(max(1, round(1e3 * deadline_s)))
    if if_revision is not None:
        written["If-Match"] = f'"{if_revision}"'
    if key is not None:
        written["Idempotency-Key"] = f'"{key}"'
    return written


def new_key() -> str:
    """Return a key that no other request has."""
    return str(uuid.uuid4())


def form_of(
    clips: Sequence[AnyClip],
    fields: Mapping[str, object],
    labels: Sequence[str] = (),
    progress: Progress | None = None,
) -> Form:
    """Write a form of clips.

    Args:
        clips: In order.
        fields: Others by name; those that are None are left out.
        labels: Of each clip, where they go to several.
        progress: Is told of the bytes that went out.
    """
    known = [clip_of(clip) for clip in clips]
    texts: dict[str, str | Sequence[str]] = {"label": list(labels)} if labels else {}
    texts |= {name: _text(value) for name, value in fields.items() if value is not None}
    for name, values in (
        ("start_s", [clip.start_s for clip in known]),
        ("end_s", [clip.end_s for clip in known]),
    ):
        if any(value is not None for value in values):
            texts[name] = ["" if value is None else repr(float(value)) for value in values]
    return Form(texts, [(name_of(clip), Upload(clip.file, progress)) for clip in known])


def name_of(clip: Clip) -> str:
    """Return by which name a clip is sent."""
    if clip.name is not None:
        return clip.name
    return BYTES if isinstance(clip.file, bytes) else str(clip.file).rpartition("/")[2]


def sizes_of(clips: Iterable[AnyClip]) -> list[int]:
    """Return the bytes of each clip."""
    return [Upload(clip_of(clip).file).length for clip in clips]


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
