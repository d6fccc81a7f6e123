"""Tasks: make, show, list, delete."""

from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Query, Response, status

from service.container import Parts
from service.http.openapi import REGISTER_HEADERS, TASK_REQUEST, problems
from service.http.routes.dependencies import PartsDep, TaskDraftDep, TaskId, TicketDep, WaitS
from service.http.schemas import TaskPage, TaskView
from service.http.views import task_view
from service.stores.records import TaskRecord

router = APIRouter(prefix="/tasks", tags=["tasks"])


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    responses={
        202: {"model": TaskView, "description": "Durable, and still getting ready."},
        **problems(400, 408, 413, 415, 422, 429, 503, 504),
    },
    openapi_extra=TASK_REQUEST | REGISTER_HEADERS,
    operation_id="createTask",
)
async def create_task(
    draft: TaskDraftDep, wait_s: WaitS, ticket: TicketDep, parts: PartsDep, response: Response
) -> TaskView:
    """Register labels with their support clips; ready to classify at once, without training."""
    record, faults = await parts.tasks.register(draft, wait_s, ticket)
    view = task_view(
        record,
        parts.engine.model,
        context=parts.engine.model.query_context,
        text_reason=parts.texts.reason(record.labels),
        preparation=parts.tasks.supports.preparation(record.task_id),
        faults=faults,
    )
    if view.status != "ready":
        response.status_code = status.HTTP_202_ACCEPTED
    response.headers["Location"] = f"/v1/tasks/{record.task_id}"
    response.headers["ETag"] = _etag(record)
    return view


@router.get("", responses=problems(422, 503), operation_id="listTasks")
async def list_tasks(
    parts: PartsDep,
    response: Response,
    limit: Annotated[int, Query(ge=1, le=100, description="Most tasks of a page.")] = 20,
    cursor: Annotated[str | None, Query(max_length=500, description="`next_cursor`.")] = None,
) -> TaskPage:
    """List tasks, newest first."""
    records, following = await parts.tasks.page(limit, cursor)
    if following is not None:
        response.headers["Link"] = (
            f'</v1/tasks?limit={limit}&cursor={quote(following)}>; rel="next"'
        )
    return TaskPage(tasks=[_view(parts, record) for record in records], next_cursor=following)


@router.get("/{task_id}", responses=problems(404, 410, 503), operation_id="getTask")
async def get_task(task_id: TaskId, parts: PartsDep, response: Response) -> TaskView:
    """Show a task: its state, its labels with their text, its clips."""
    record = await parts.tasks.get(task_id)
    response.headers["ETag"] = _etag(record)
    return _view(parts, record)


@router.delete(
    "/{task_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=problems(404, 503),
    operation_id="deleteTask",
)
async def delete_task(task_id: TaskId, parts: PartsDep) -> None:
    """Delete a task and all that came from its clips; doing it twice is fine."""
    await parts.tasks.delete(task_id)


def _view(parts: Parts, record: TaskRecord) -> TaskView:
    return task_view(
        record,
        parts.engine.model,
        context=parts.engine.model.query_context,
        text_reason=parts.texts.reason(record.labels),
        preparation=parts.tasks.supports.preparation(record.task_id),
    )


def _etag(record: TaskRecord) -> str:
    return f'"{record.revision}"'
