"""Tasks: make, show, list, delete, and classify clips against one."""

import asyncio
from dataclasses import replace
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Query, Response, status

from service.container import Service
from service.engine.saliency_work import PASSES
from service.http.changes.document import IF_MATCH
from service.http.diagnosis.views import diagnosis_short
from service.http.once.repeat import RepeatDep
from service.http.openapi import (
    CLASSIFY_HEADERS,
    QUERY_REQUEST,
    REGISTER_HEADERS,
    TASK_REQUEST,
    problems,
)
from service.http.routes.dependencies import (
    AllowanceDep,
    AskedWaitS,
    ExpectedDep,
    NewTaskDep,
    OwnerDep,
    QueryDep,
    RequestId,
    ServiceDep,
    TaskId,
    WaitS,
)
from service.http.schemas import Classification, TaskPage, TaskView
from service.http.views import classification, task_line, task_view
from service.logs import note
from service.stores.errors import TaskExpiredError, TaskNotFoundError
from service.stores.records import CURSOR, TaskRecord, new_id
from service.tasks.allowance import Deadline
from service.tasks.once import fingerprint

router = APIRouter(prefix="/tasks", tags=["tasks"])


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    response_model=TaskView,
    responses={
        202: {"model": TaskView, "description": "Durable, and still getting ready."},
        **problems(400, 408, 409, 410, 413, 415, 422, 429, 503, 504),
    },
    openapi_extra=TASK_REQUEST | REGISTER_HEADERS,
    operation_id="createTask",
)
async def create_task(
    repeat: RepeatDep,
    task: NewTaskDep,
    wait_s: AskedWaitS,
    allowance: AllowanceDep,
    service: ServiceDep,
    response: Response,
) -> TaskView | Response:
    """Register labels with their support clips; ready to classify at once, without training."""

    async def make(seed: str | None) -> TaskView:
        asked = replace(allowance, seed=seed)
        return await new_view(service, await service.tasks.register(task, wait_s, asked), response)

    if repeat is None:
        return await make(None)
    return await repeat.answer(
        fingerprint=await asyncio.to_thread(fingerprint.of_task, repeat.name, task),
        seed=new_id(allowance.owner),
        response=response,
        make=make,
        find=lambda seed: made_view(service, seed, response),
    )


@router.get("", responses=problems(422, 503), operation_id="listTasks")
async def list_tasks(
    service: ServiceDep,
    owner: OwnerDep,
    response: Response,
    limit: Annotated[int, Query(ge=1, le=100, description="Most tasks of a page.")] = 20,
    cursor: Annotated[
        str | None,
        Query(
            max_length=500,
            description="`next_cursor`.",
            json_schema_extra={"pattern": f"^{CURSOR}$"},  # a fault has its own code
        ),
    ] = None,
) -> TaskPage:
    """List tasks, newest first."""
    records, following = await service.tasks.page(limit, cursor, owner)
    if following is not None:
        response.headers["Link"] = (
            f'</v1/tasks?limit={limit}&cursor={quote(following)}>; rel="next"'
        )
    return TaskPage(
        tasks=[
            task_line(
                record,
                service.engine.model,
                preparation=service.tasks.supports.preparations.get(record.task_id),
            )
            for record in records
        ],
        next_cursor=following,
    )


@router.get("/{task_id}", responses=problems(404, 410, 422, 503), operation_id="getTask")
async def get_task(
    task_id: TaskId,
    service: ServiceDep,
    response: Response,
    wait_s: WaitS,
    diagnosis: Annotated[bool, Query(description="Add a diagnosis in short.")] = False,
) -> TaskView:
    """Show a task: its state, its labels with their text, its clips."""
    record, found = await service.tasks.get(task_id), None
    if diagnosis:
        deadline = Deadline.after(service.limits.deadline_s)
        found = await service.diagnoser.diagnose(task_id, wait_s, deadline)
        record = found.record
    response.headers["ETag"] = etag(record)
    view = await view_of(service, record)
    view.diagnosis = None if found is None else diagnosis_short(found)
    return view


@router.delete(
    "/{task_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=problems(404, 412, 422, 503),
    openapi_extra={"parameters": [IF_MATCH]},
    operation_id="deleteTask",
)
async def delete_task(task_id: TaskId, expected: ExpectedDep, service: ServiceDep) -> None:
    """Delete a task and all that came from its clips; doing it twice is fine."""
    await service.tasks.delete(task_id, expected)


@router.post(
    "/{task_id}/classify",
    responses=problems(400, 404, 408, 409, 410, 413, 415, 422, 429, 503, 504),
    openapi_extra=QUERY_REQUEST | CLASSIFY_HEADERS,
    operation_id="classify",
)
async def classify(
    task_id: TaskId,
    query: QueryDep,
    wait_s: WaitS,
    allowance: AllowanceDep,
    service: ServiceDep,
    request_id: RequestId,
) -> Classification:
    """Tell what each clip is, among the labels of the task; no clip affects another's answer."""
    answer = await service.classifier.classify(
        task_id, query.clips, wait_s, allowance, explain=query.explain
    )
    service.meters.classified(answer)
    passes = PASSES if query.explain else 1
    note(
        frames=passes * len(answer.clips) * service.engine.model.frames,
        decode_ms=round(answer.decode_ms, 1),
        queue_ms=round(answer.queue_ms, 1),
        compute_ms=round(answer.compute_ms, 1),
    )
    shown = classification(answer, service.engine.model, request_id)
    if query.remember or (query.remember is None and answer.record.inbox is not None):
        ids = await service.inbox.remember(
            answer, query.clips, allowance.deadline, whatever=query.remember is True
        )
        for result in shown.results:
            result.query_id = ids.get(result.clip_index)
    return shown


async def view_of(service: Service, record: TaskRecord) -> TaskView:
    """Show a task as it stands, with what is known of its text and its progress."""
    without_text = await service.texts.reason(record.labels)
    return task_view(
        record,
        service.engine.model,
        with_text=without_text is None,
        text_reason=without_text or service.tasks.supports.undescribed(record.task_id),
        preparation=service.tasks.supports.preparations.get(record.task_id),
    )


async def new_view(service: Service, record: TaskRecord, response: Response) -> TaskView:
    """Show a task that was made, with its place and its revision in the headers."""
    view = await view_of(service, record)
    if view.status != "ready":
        response.status_code = status.HTTP_202_ACCEPTED
    response.headers["Location"] = f"/v1/tasks/{record.task_id}"
    response.headers["ETag"] = etag(record)
    return view


async def made_view(service: Service, task_id: str, response: Response) -> TaskView | None:
    """Show a task as one that was just made; None where there is none."""
    try:
        return await new_view(service, await service.tasks.get(task_id), response)
    except (TaskNotFoundError, TaskExpiredError):
        return None


def etag(record: TaskRecord) -> str:
    """Return the entity tag of a task's revision."""
    return f'"{record.revision}"'
