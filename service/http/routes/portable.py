"""Tasks as files."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response, status

from service.errors import MediaTypeError
from service.http.openapi import REGISTER_HEADERS, problems
from service.http.routes.dependencies import AllowanceDep, ServiceDep, TaskId, WaitS
from service.http.routes.tasks import etag, view_of
from service.http.schemas import TaskView

router = APIRouter(prefix="/tasks", tags=["tasks"])
ZIP = "application/zip"
FILE: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
IMPORT_REQUEST: dict[str, Any] = {"requestBody": {"required": True, "content": {ZIP: FILE}}}


@router.post(
    "/import",
    status_code=status.HTTP_201_CREATED,
    responses={
        202: {"model": TaskView, "description": "Durable, and still getting ready."},
        **problems(400, 408, 413, 415, 422, 429, 503, 504),
    },
    openapi_extra=IMPORT_REQUEST | REGISTER_HEADERS,
    operation_id="importTask",
)
async def import_task(
    request: Request,
    wait_s: WaitS,
    allowance: AllowanceDep,
    service: ServiceDep,
    response: Response,
) -> TaskView:
    """Make a new task of a file that an export gave; its pictures are encoded by this model."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != ZIP:
        raise MediaTypeError(
            f"The content type {kind[:80]!r} is not read here; send the exported file as {ZIP}."
        )
    content = await request.body()
    record = await service.porter.take_in(content, wait_s, allowance)
    view = await view_of(service, record)
    if view.status != "ready":
        response.status_code = status.HTTP_202_ACCEPTED
    response.headers["Location"] = f"/v1/tasks/{record.task_id}"
    response.headers["ETag"] = etag(record)
    return view


@router.get(
    "/{task_id}/export",
    response_class=Response,
    responses={200: {"content": {ZIP: FILE}}, **problems(404, 409, 410, 422, 503)},
    operation_id="exportTask",
)
async def export_task(
    task_id: TaskId,
    service: ServiceDep,
    remembered: Annotated[
        bool, Query(description="Add the queries that it remembers, as they were answered.")
    ] = False,
) -> Response:
    """Give a task as one file: its record and its pictures, with checksums."""
    record, content = await service.porter.export(task_id, remembered=remembered)
    headers = {
        "ETag": etag(record),
        "Content-Disposition": f'attachment; filename="kshot-{record.task_id}.zip"',
    }
    return Response(content, media_type=ZIP, headers=headers)
