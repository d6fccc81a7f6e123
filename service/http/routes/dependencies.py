"""What routes may ask for: the service, the request's allowance, its body read into values.

All are coroutines, since FastAPI calls a plain function in a thread.
"""

import asyncio
import math
import re
from collections.abc import AsyncIterator, Sequence
from typing import Annotated

from fastapi import Depends, HTTPException, Request, status
from fastapi.routing import APIRoute

from service.container import Service
from service.decoding.pool import ClipRequest
from service.engine.saliency_work import PASSES
from service.errors import FieldFault, UnknownFieldError
from service.http.access.guard import CALLER, allow
from service.http.body import SentQuery, parse_json, query_of_json, task_of_json, validate
from service.http.changes.reading import read_if_match
from service.http.content import JSON, content_type, form_of
from service.http.multipart import query_of_form, task_of_form
from service.http.schemas import QueryBody, TaskBody
from service.keys.key import Caller
from service.limits import Limits
from service.stores.errors import TaskNotFoundError
from service.stores.records import absent, is_id, owner_of
from service.tasks.allowance import Allowance
from service.tasks.changes.edits import Revisions
from service.tasks.inputs import ClipInput, NewTask, check_task

WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})\"?(?=$|[,;\s])", flags=re.IGNORECASE)
NO_TASKS = frozenset({"import"})  # what stands in the place of an id in paths of other routes
ASYNC = re.compile(r"(?:^|[,;\s])respond-async(?=$|[,;\s])", flags=re.IGNORECASE)


async def service(request: Request) -> AsyncIterator[Service]:
    """Give what answers for the task of the path; it stands until the answer is sent."""
    models = request.app.state.models
    running = models.elsewhere.get(request.path_params.get("task_id"), models.current)
    assert isinstance(running, Service)
    running.requests += 1
    try:
        yield running
    finally:
        running.requests -= 1


ServiceDep = Annotated[Service, Depends(service)]


async def owner(request: Request) -> str:
    """Return whose tasks the request may see and make; everybody's who needs no key are one's."""
    caller = request.scope.get(CALLER)
    return caller.owner if isinstance(caller, Caller) else ""


OwnerDep = Annotated[str, Depends(owner)]


async def entrance(request: Request, running: ServiceDep, owner: OwnerDep) -> None:
    """Let the caller in, to its own tasks: the one place that every route passes.

    Whose a task is stands in its id, so that no answer depends on whether another tenant's task is
    there: the store is not asked.

    Raises:
        KeyMissingError, ScopeMissingError: It may not use the route.
        TaskNotFoundError: The task of the path can be none of its tasks.
    """
    if running.ground.ring is not None:
        allow(request)
    task_id = request.path_params.get("task_id")
    if task_id in NO_TASKS and request.url.path.endswith(f"/tasks/{task_id}"):
        raise HTTPException(status.HTTP_405_METHOD_NOT_ALLOWED)  # another route's, with other verbs
    if task_id is not None and owner_of(task_id) != owner:
        raise absent(task_id, None, 0.0)


async def known_parameters(request: Request) -> None:
    """Refuse query parameters that the route itself does not declare.

    Raises:
        UnknownFieldError: There is one.
    """
    route = request.scope.get("route")
    if not request.query_params or not isinstance(route, APIRoute):
        return
    known = [field.alias for field in route.dependant.query_params]
    for name in request.query_params:
        if name not in known:
            remedy = f"use {', '.join(known)}" if known else "this route takes none"
            raise UnknownFieldError(
                f"The query parameter {name[:100]!r} is not known here; {remedy}.",
                [FieldFault(name[:100], "no such parameter; take it away")],
            )


async def known_id(task_id: str) -> str:
    """Return the task id of the path.

    Raises:
        TaskNotFoundError: It cannot be the id of a task.
    """
    if not is_id(task_id):
        raise TaskNotFoundError(f"There is no task {task_id[:64]!r}; see GET /v1/tasks.")
    return task_id


async def asked_wait_s(request: Request, running: ServiceDep) -> float | None:
    """Return how long the client lets the request wait: header `Prefer` (RFC 7240), capped."""
    prefer = ", ".join(request.headers.getlist("prefer"))
    if match := WAIT.search(prefer):
        return min(float(match[1]), running.limits.wait_s)
    return 0.0 if ASYNC.search(prefer) else None


AskedWaitS = Annotated[float | None, Depends(asked_wait_s)]


async def wait_s(asked_s: AskedWaitS, running: ServiceDep) -> float:
    """Return how long the request waits, as its client asked or as long as usual."""
    return running.limits.wait_s if asked_s is None else asked_s


async def allowance(request: Request) -> Allowance:
    """Return what the request was admitted with."""
    admitted = request.scope["kshot.allowance"]
    assert isinstance(admitted, Allowance)
    return admitted


async def request_id(request: Request) -> str:
    """Return the id under which the log has this request."""
    return str(request.scope.get("kshot.request_id", ""))


async def expected(request: Request) -> Revisions | None:
    """Return the revisions that the change is meant for."""
    return read_if_match(request.headers.getlist("if-match"))


ExpectedDep = Annotated[Revisions | None, Depends(expected)]
AllowanceDep = Annotated[Allowance, Depends(allowance)]


async def new_task(request: Request, admitted: AllowanceDep, running: ServiceDep) -> NewTask:
    """Return the task that the body asks for."""
    admitted.deadline.check("receiving")
    task = await read_task(request, running.limits)
    correct_cost(admitted, [clip for label in task.labels for clip in label.clips], running)
    return task


async def query_clips(request: Request, admitted: AllowanceDep, running: ServiceDep) -> SentQuery:
    """Return the clips that the body asks about."""
    admitted.deadline.check("receiving")
    query = await read_query(request, running.limits)
    correct_cost(admitted, query.clips, running, PASSES if query.explain else 1)
    return query


def correct_cost(
    admitted: Allowance, clips: Sequence[ClipInput], running: Service, passes: int = 1
) -> None:
    """Replace the cost that was guessed from the body's length by that of its clips."""
    sources = [clip.source for clip in clips if isinstance(clip.source, ClipRequest)]
    size = sum(source.size for source in sources)
    admitted.credits.correct(
        decode_ms=math.ceil(1e3 * running.pool.pace.s_byte * size),
        frames=passes * running.engine.model.frames * len(sources),
    )


async def read_task(request: Request, limits: Limits) -> NewTask:
    """Read the body of POST /tasks.

    Raises:
        RequestError: The body, or the task it asks for, cannot be used.
    """
    if content_type(request) == JSON:
        raw = await request.body()
        task = await asyncio.to_thread(
            lambda: task_of_json(validate(parse_json(raw), TaskBody), limits)
        )
    else:
        async with form_of(request, limits.support_clips) as form:
            task = await task_of_form(form, limits)
    return check_task(task, limits)


async def read_query(request: Request, limits: Limits) -> SentQuery:
    """Read the body of POST /tasks/{id}/classify.

    Raises:
        RequestError: The body cannot be used.
    """
    if content_type(request) == JSON:
        raw = await request.body()
        return await asyncio.to_thread(
            lambda: query_of_json(validate(parse_json(raw), QueryBody), limits)
        )
    async with form_of(request, limits.query_clips) as form:
        return await query_of_form(form, limits)


TaskId = Annotated[str, Depends(known_id)]
WaitS = Annotated[float, Depends(wait_s)]
RequestId = Annotated[str, Depends(request_id)]
NewTaskDep = Annotated[NewTask, Depends(new_task)]
QueryDep = Annotated[SentQuery, Depends(query_clips)]
