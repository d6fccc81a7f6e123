"""Changes of a task: every one is its next revision.

`if_revision` makes a change on that revision alone; if another one stands, it is refused with
`revision-stale`. A change returns the task when it is ready again.
"""

import json
from collections.abc import Sequence

import httpx

from kshot_client.calls import Call, Flow, Send
from kshot_client.models.tasks import ChangedTask, InboxPolicy
from kshot_client.operations.requests import LONG_S, form_of, headers_of, new_key, task_path
from kshot_client.operations.tasks import PATIENCE_S, ready
from kshot_client.uploads import AnyClip, Progress


class Unset:
    """What is not said, where None says something."""


UNSET = Unset()


def change(
    task_id: str,
    *,
    name: str | Unset | None = UNSET,
    ttl_s: float | Unset | None = UNSET,
    unknown_below: float | Unset | None = UNSET,
    inbox: InboxPolicy | Unset | None = UNSET,
    if_revision: int | None = None,
) -> Flow[ChangedTask]:
    """Change what a task itself has; what is not given stays.

    Args:
        task_id: Which.
        name: What people call it; None takes it away.
        ttl_s: How long it lives from now on; None is for ever.
        unknown_below: Its own threshold of `nearest`; None goes back to the checkpoint's.
        inbox: Which queries it remembers unasked; None is none.
        if_revision: The revision that this is meant for.
    """
    kept = inbox.model_dump() if isinstance(inbox, InboxPolicy) else inbox
    given = {"name": name, "ttl_s": ttl_s, "unknown_below": unknown_below, "inbox": kept}
    body = {field: value for field, value in given.items() if not isinstance(value, Unset)}
    headers = headers_of(deadline_s=LONG_S, if_revision=if_revision)
    return (yield from _changed(Call("PATCH", task_path(task_id), json=body, headers=headers)))


def put_label(
    task_id: str,
    label: str,
    clips: Sequence[AnyClip],
    *,
    descriptions: Sequence[str] | None = None,
    allow_partial: bool = False,
    if_revision: int | None = None,
    progress: Progress | None = None,
) -> Flow[ChangedTask]:
    """Add a label with its clips; one that is there gets these in the place of its own."""
    words = None if descriptions is None else json.dumps(list(descriptions))
    fields = {"allow_partial": allow_partial or None, "descriptions": words}
    call = Call(
        "PUT",
        task_path(task_id, "labels", label),
        repeatable=if_revision is None,
        headers=headers_of(deadline_s=LONG_S, if_revision=if_revision),
        form=form_of(clips, fields, progress=progress),
    )
    return (yield from _changed(call))


def add_clips(
    task_id: str,
    label: str,
    clips: Sequence[AnyClip],
    *,
    allow_partial: bool = False,
    if_revision: int | None = None,
    idempotency_key: str | None = None,
    progress: Progress | None = None,
) -> Flow[ChangedTask]:
    """Add clips to a label."""
    key = idempotency_key or new_key()
    call = Call(
        "POST",
        task_path(task_id, "labels", label, "clips"),
        headers=headers_of(deadline_s=LONG_S, if_revision=if_revision, key=key),
        form=form_of(clips, {"allow_partial": allow_partial or None}, progress=progress),
    )
    return (yield from _changed(call))


def rename_label(
    task_id: str, label: str, to: str, *, if_revision: int | None = None
) -> Flow[ChangedTask]:
    """Call a label otherwise; its clips stay."""
    return (
        yield from _changed(
            Call(
                "PATCH",
                task_path(task_id, "labels", label),
                json={"label": to},
                headers=headers_of(deadline_s=LONG_S, if_revision=if_revision),
            )
        )
    )


def describe_label(
    task_id: str,
    label: str,
    descriptions: Sequence[str] | None,
    *,
    if_revision: int | None = None,
) -> Flow[ChangedTask]:
    """Give a label other sentences, one a stage; None goes back to those made of the label."""
    return (
        yield from _changed(
            Call(
                "PUT",
                task_path(task_id, "labels", label, "descriptions"),
                json={"descriptions": None if descriptions is None else list(descriptions)},
                headers=headers_of(deadline_s=LONG_S, if_revision=if_revision),
            )
        )
    )


def remove_label(task_id: str, label: str, *, if_revision: int | None = None) -> Flow[ChangedTask]:
    """Remove a label and its clips."""
    headers = headers_of(deadline_s=LONG_S, if_revision=if_revision)
    return (
        yield from _changed(Call("DELETE", task_path(task_id, "labels", label), headers=headers))
    )


def remove_clip(task_id: str, clip_id: str, *, if_revision: int | None = None) -> Flow[ChangedTask]:
    """Remove a support clip."""
    headers = headers_of(deadline_s=LONG_S, if_revision=if_revision)
    return (
        yield from _changed(Call("DELETE", task_path(task_id, "clips", clip_id), headers=headers))
    )


def clip_frames(task_id: str, clip_id: str, *, width: int | None = None) -> Flow[bytes]:
    """Return the pictures of a support clip that are looked at, side by side, as JPEG.

    Each is `width` pixels wide where it is kept larger; None gives them as they are kept.
    """
    path = task_path(task_id, "clips", clip_id, "frames")
    params = {} if width is None else {"width": width}
    answer: httpx.Response = yield Send(Call("GET", path, repeatable=True, params=params))
    return answer.content


def answer_query(
    task_id: str,
    query_id: str,
    *,
    label: str | Unset | None = UNSET,
    dismiss: bool = False,
    if_revision: int | None = None,
    idempotency_key: str | None = None,
) -> Flow[ChangedTask]:
    """Say what a query of the inbox is.

    Args:
        task_id: Whose it is.
        query_id: Which.
        label: The label that it becomes an example of; None: it is none of them.
        dismiss: Drop it instead.
        if_revision: The revision that this is meant for.
        idempotency_key: By which a repeated call is known as the same; None makes one.
    """
    body: dict[str, object] = {} if isinstance(label, Unset) else {"label": label}
    body |= {"dismiss": True} if dismiss else {}
    key = idempotency_key or new_key()
    call = Call(
        "POST",
        task_path(task_id, "inbox", query_id),
        json=body,
        headers=headers_of(deadline_s=LONG_S, if_revision=if_revision, key=key),
    )
    return (yield from _changed(call))


def _changed(call: Call) -> Flow[ChangedTask]:
    answer: httpx.Response = yield Send(call)
    return (yield from ready(ChangedTask.model_validate_json(answer.content), PATIENCE_S))
