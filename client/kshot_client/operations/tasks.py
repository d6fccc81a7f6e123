"""Tasks: make, wait for, list, show, delete, and carry elsewhere."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import httpx

from kshot_client.calls import Call, Flow, Give, Items, Pause, Send
from kshot_client.models.results import Diagnosis
from kshot_client.models.tasks import InboxPolicy, Task, TaskLine, TaskPage
from kshot_client.operations.requests import LONG_S, form_of, headers_of, new_key, task_path
from kshot_client.problems import StillWorkingError, TaskFailedError
from kshot_client.uploads import AnyClip, Progress, Upload

AnyTask = TypeVar("AnyTask", bound=Task)
PATIENCE_S = 600.0
FIRST_LOOK_S, LONGEST_LOOK_S = 0.2, 2.0
PAGE = 100


def register(
    support: Mapping[str, Sequence[AnyClip]],
    *,
    name: str | None = None,
    descriptions: Mapping[str, Sequence[str]] | None = None,
    ttl_s: float | None = None,
    allow_partial: bool = False,
    inbox: InboxPolicy | None = None,
    wait: bool = True,
    patience_s: float = PATIENCE_S,
    idempotency_key: str | None = None,
    progress: Progress | None = None,
) -> Flow[Task]:
    """Make a task of labels and a few clips each.

    Args:
        support: Clips of each label.
        name: What people call it.
        descriptions: One sentence a stage for every label; None leaves them to the service.
        ttl_s: How long it lives, seconds; None is for ever.
        allow_partial: Leave out clips that cannot be used, while every label keeps one.
        inbox: Which queries it remembers unasked; None is none.
        wait: Return it when it is ready; else as soon as it is safe.
        patience_s: How long to wait at most.
        idempotency_key: By which a repeated call is known as the same; None makes one.
        progress: Is told of the bytes that went out.

    Raises:
        ProblemError: It was refused.
        TaskFailedError: Its clips turned out to be damaged.
        StillWorkingError: It is not ready in time; it goes on.
        NoAnswerError: The service cannot be reached.
    """
    told = None if descriptions is None else {k: list(v) for k, v in descriptions.items()}
    fields = {"name": name, "ttl_s": ttl_s, "allow_partial": allow_partial or None}
    objects = {"descriptions": told, "inbox": None if inbox is None else inbox.model_dump()}
    body = _body(support, fields, objects, progress)
    headers = headers_of(wait=wait, key=idempotency_key or new_key())
    call = Call("POST", "/v1/tasks", repeatable=True, headers=headers, **body)
    answer: httpx.Response = yield Send(call)
    task = Task.model_validate_json(answer.content)
    return (yield from ready(task, patience_s)) if wait else task


def _body(
    support: Mapping[str, Sequence[AnyClip]],
    fields: Mapping[str, object],
    objects: Mapping[str, object],
    progress: Progress | None,
) -> dict[str, Any]:
    """Write a task as a form; as JSON if it has labels alone, of which a form has none."""
    labels = [label for label, clips in support.items() for _ in clips]
    if labels:
        given = [clip for clips in support.values() for clip in clips]
        written = {k: None if v is None else json.dumps(v) for k, v in objects.items()}
        return {"form": form_of(given, {**fields, **written}, labels, progress)}
    body = {k: v for k, v in {**fields, **objects}.items() if v is not None}
    return {"json": body | {"labels": [{"label": label, "clips": []} for label in support]}}


def wait_until_ready(task_id: str, *, patience_s: float = PATIENCE_S) -> Flow[Task]:
    """Wait for a task, and return it when it is ready.

    Raises:
        ProblemError: There is no such task.
        TaskFailedError: It will never be ready.
        StillWorkingError: It is not ready in time; it goes on.
    """
    return (yield from ready((yield from task(task_id)), patience_s))


def ready(task: AnyTask, patience_s: float) -> Flow[AnyTask]:
    """Ask for a task until it is ready; what only a change tells stays as it is."""
    waited_s, pause_s = 0.0, FIRST_LOOK_S
    while task.status == "processing":
        if waited_s >= patience_s:
            raise StillWorkingError(
                f"Task {task.id} is not ready after {patience_s:g} s ({task.progress:.0%} done); "
                "it goes on, so wait for it again."
            )
        yield Pause(pause_s)
        waited_s, pause_s = waited_s + pause_s, min(2 * pause_s, LONGEST_LOOK_S)
        answer: httpx.Response = yield Send(Call("GET", task_path(task.id), repeatable=True))
        task = type(task).model_validate(task.model_dump() | answer.json())
    if task.status == "failed":
        raise TaskFailedError(task.id, task.failure or "see its log.", list(task.refused_clips))
    return task


def task(task_id: str, *, diagnosis: bool = False) -> Flow[Task]:
    """Show a task.

    Args:
        task_id: Which.
        diagnosis: With a diagnosis in short.

    Raises:
        ProblemError: There is none.
    """
    params = {"diagnosis": "true"} if diagnosis else {}
    call = Call("GET", task_path(task_id), repeatable=True, params=params)
    answer: httpx.Response = yield Send(call)
    return Task.model_validate_json(answer.content)


def tasks(*, page: int = PAGE) -> Items[TaskLine]:
    """List all tasks, newest first; pages of `page` are asked for as they are needed."""
    params: dict[str, str | int | bool] = {"limit": page}
    while True:
        answer: httpx.Response = yield Send(Call("GET", "/v1/tasks", True, params))
        found = TaskPage.model_validate_json(answer.content)
        for line in found.tasks:
            yield Give(line)
        if found.next_cursor is None:
            return
        params["cursor"] = found.next_cursor


def delete(task_id: str, *, if_revision: int | None = None) -> Flow[None]:
    """Delete a task and everything that came from its clips; doing it twice is fine."""
    headers = headers_of(if_revision=if_revision)
    yield Send(Call("DELETE", task_path(task_id), repeatable=True, headers=headers))


def diagnose(task_id: str) -> Flow[Diagnosis]:
    """Say how well a task does, which clips and labels harm it, and whether more would help."""
    answer: httpx.Response = yield Send(
        Call("GET", task_path(task_id, "diagnosis"), repeatable=True)
    )
    return Diagnosis.model_validate_json(answer.content)


def export_task(task_id: str, *, remembered: bool = False) -> Flow[bytes]:
    """Give a task as one file: its record and its pictures, with checksums.

    Args:
        task_id: Which.
        remembered: With the queries of its inbox.
    """
    params = {"remembered": "true"} if remembered else {}
    call = Call("GET", task_path(task_id, "export"), repeatable=True, params=params)
    answer: httpx.Response = yield Send(call)
    return answer.content


def import_task(
    file: Path | str | bytes,
    *,
    wait: bool = True,
    patience_s: float = PATIENCE_S,
    idempotency_key: str | None = None,
    progress: Progress | None = None,
) -> Flow[Task]:
    """Make a new task of a file that `export_task` gave.

    Args:
        file: Its place, or its bytes.
        wait: Return the task when it is ready; else as soon as it is safe.
        patience_s: How long to wait at most.
        idempotency_key: By which a repeated call is known as the same; None makes one.
        progress: Is told of the bytes that went out.

    Raises:
        ProblemError: It was refused: damaged, foreign, or of a later version.
        TaskFailedError, StillWorkingError: As for `register`.
    """
    headers = headers_of(wait=wait, deadline_s=LONG_S, key=idempotency_key or new_key())
    headers["Content-Type"] = "application/zip"
    upload = Upload(file, progress)
    call = Call("POST", "/v1/tasks/import", repeatable=True, headers=headers, file=upload)
    answer: httpx.Response = yield Send(call)
    task = Task.model_validate_json(answer.content)
    return (yield from ready(task, patience_s)) if wait else task
