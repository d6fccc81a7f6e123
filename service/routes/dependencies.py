"""What routes may ask for."""

import re
from typing import Annotated

from fastapi import Depends, Request

from service.bodies.reading import read_query, read_task
from service.drafts import ClipDraft, TaskDraft
from service.parts import Parts
from service.stores.errors import TaskNotFoundError
from service.stores.records import is_id

WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})\"?(?=$|[,;\s])", flags=re.IGNORECASE)
ASYNC = re.compile(r"(?:^|[,;\s])respond-async(?=$|[,;\s])", flags=re.IGNORECASE)


def parts(request: Request) -> Parts:
    """Give the parts of the running service."""
    running = request.app.state.parts
    assert isinstance(running, Parts)
    return running


PartsDep = Annotated[Parts, Depends(parts)]


def known_id(task_id: str) -> str:
    """Give the task id of the path, if it can be one.

    Raises:
        TaskNotFoundError: It cannot.
    """
    if not is_id(task_id):
        raise TaskNotFoundError(f"There is no task {task_id[:64]!r}; see GET /v1/tasks.")
    return task_id


def wait_s(request: Request, running: PartsDep) -> float:
    """Give how long the client lets the request wait: the header `Prefer` (RFC 7240), capped."""
    prefer = ", ".join(request.headers.getlist("prefer"))
    if match := WAIT.search(prefer):
        return min(float(match[1]), running.settings.wait_s)
    return 0.0 if ASYNC.search(prefer) else running.settings.wait_s


async def task_draft(request: Request, running: PartsDep) -> TaskDraft:
    """Give the task that the body asks for."""
    return await read_task(request, running.settings)


async def query_drafts(request: Request, running: PartsDep) -> tuple[ClipDraft, ...]:
    """Give the clips that the body asks about."""
    return await read_query(request, running.settings)


TaskId = Annotated[str, Depends(known_id)]
WaitS = Annotated[float, Depends(wait_s)]
TaskDraftDep = Annotated[TaskDraft, Depends(task_draft)]
QueryDraftsDep = Annotated[tuple[ClipDraft, ...], Depends(query_drafts)]
