"""Tasks as files."""

import asyncio
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response, status

from service.errors import MediaTypeError
from service.http.once.repeat import RepeatDep
from service.http.openapi import REGISTER_HEADERS, problems
from service.http.routes.dependencies import AllowanceDep, ServiceDep, TaskId, WaitS
from service.http.routes.tasks import etag, made_view, new_view
from service.http.schemas import TaskView
from service.stores.records import new_id
from service.tasks.once import fingerprint

router = APIRouter(prefix="/tasks", tags=["tasks"])
ZIP = "application/zip"
FILE: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
IMPORT_REQUEST: dict[str, Any] = {"requestBody": {"required": True, "content": {ZIP: FILE}}}


@router.post(
    "/import",
    status_code=status.HTTP_201_CREATED,
    response_model=TaskView,
    responses={
        202: {"model": TaskView, "description": "Durable, and still getting ready."},
        **problems(400, 408, 409, 410, 413, 415, 422, 429, 503, 504),
    },
    openapi_extra=IMPORT_REQUEST | REGISTER_HEADERS,
    operation_id="importTask",
)
async def import_task(
    repeat: RepeatDep,
    request: Request,
    wait_s: WaitS,
    allowance: AllowanceDep,
    service: ServiceDep,
    response: Response,
) -> TaskView | Response:
    """Make a new task of a file that an export gave; its pictures are encoded by this model."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != ZIP:
        raise MediaTypeError(
            f"The content type {kind[:80]!r} is not read here; send the exported file as {ZIP}."
        )
    content = await request.body()

    async def make(seed: str | None) -> TaskView:
        asked = replace(allowance, seed=seed)
        return await new_view(
            service, await service.porter.take_in(content, wait_s, asked), response
        )

    if repeat is None:
        return await make(None)
    return await repeat.answer(
        fingerprint=await asyncio.to_thread(fingerprint.of_bytes, repeat.name, content),
        seed=new_id(allowance.owner),
        response=response,
        make=make,
        find=lambda seed: made_view(service, seed, response),
    )


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
