"""Changes of a task: its labels, clips, words and settings; every one is a revision."""

import asyncio
import secrets
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response, status

from service.container import Service
from service.http.body import read_label, read_stages
from service.http.changes.document import clips_request, headers, json_request
from service.http.changes.reading import (
    SentLabel,
    read_clips,
    read_json,
    read_label_clips,
    settings_of,
)
from service.http.changes.schemas import (
    ChangedTask,
    ChangeView,
    NameBody,
    SettingsBody,
    WordsBody,
)
from service.http.once.repeat import RepeatDep
from service.http.openapi import Responses, problems
from service.http.routes import strips
from service.http.routes.dependencies import (
    AllowanceDep,
    ExpectedDep,
    ServiceDep,
    TaskId,
    WaitS,
    correct_cost,
)
from service.http.routes.tasks import etag, view_of
from service.http.schemas import ClipProblem
from service.stores.records import RefusedClip
from service.tasks.changes import edits
from service.tasks.changes.change import Asked, Changed
from service.tasks.once import fingerprint

router = APIRouter(prefix="/tasks/{task_id}", tags=["changes"])
CHANGE = (400, 404, 408, 409, 410, 412, 413, 415, 422, 429, 503, 504)
GETTING_READY: Responses = {
    202: {"model": ChangedTask, "description": "Durable, and still getting ready."}
}


async def asked(
    task_id: TaskId,
    expected: ExpectedDep,
    wait_s: WaitS,
    allowance: AllowanceDep,
) -> Asked:
    """Return who asks for a change."""
    return Asked(task_id, expected, wait_s, allowance)


async def label_of(label: str, service: ServiceDep) -> str:
    """Return the label of the path, cleaned."""
    return read_label(label, service.limits)


AskedDep = Annotated[Asked, Depends(asked)]
Label = Annotated[str, Depends(label_of)]


@router.patch(
    "",
    responses={**GETTING_READY, **problems(*CHANGE)},
    openapi_extra=json_request("SettingsBody") | headers(),
    operation_id="changeTask",
)
async def change_task(
    asked: AskedDep, request: Request, service: ServiceDep, response: Response
) -> ChangedTask:
    """Change the name, the end or the unknown policy of a task."""
    body = await read_json(request, SettingsBody)
    done = await service.changer.edit(asked, settings_of(body, service.limits))
    return await changed_view(service, done, response)


@router.put(
    "/labels/{label:path}/descriptions",
    responses={**GETTING_READY, **problems(*CHANGE)},
    openapi_extra=json_request("WordsBody") | headers(),
    operation_id="describeLabel",
)
async def describe_label(
    asked: AskedDep, label: Label, request: Request, service: ServiceDep, response: Response
) -> ChangedTask:
    """Give a label other sentences."""
    words = (await read_json(request, WordsBody)).descriptions
    stages = None if words is None else read_stages(label, words, service.limits)
    return await changed_view(
        service, await service.changer.describe(asked, label, stages), response
    )


@router.post(
    "/labels/{label:path}/clips",
    response_model=ChangedTask,
    responses={**GETTING_READY, **problems(*CHANGE)},
    openapi_extra=clips_request("ClipsBody", described=False) | headers(once=True),
    operation_id="addClips",
)
async def add_clips(
    repeat: RepeatDep,
    asked: AskedDep,
    label: Label,
    request: Request,
    service: ServiceDep,
    response: Response,
) -> ChangedTask | Response:
    """Add clips to a label."""
    sent = await read_clips(request, label, service.limits)

    async def make(seed: str | None) -> ChangedTask:
        new = _counted(sent, asked, service).label
        once = replace(asked, allowance=replace(asked.allowance, seed=seed))
        done = await service.changer.add_clips(once, new, allow_partial=sent.allow_partial)
        return await changed_view(service, done, response)

    async def find(seed: str) -> ChangedTask | None:
        done = await service.changer.added(asked.task_id, seed)
        return None if done is None else await changed_view(service, done, response)

    if repeat is None:
        return await make(None)
    partial = sent.allow_partial
    return await repeat.answer(
        fingerprint=await asyncio.to_thread(
            lambda: fingerprint.of_label(repeat.name, sent.label, allow_partial=partial)
        ),
        seed=secrets.token_hex(16),
        response=response,
        make=make,
        find=find,
        task_id=asked.task_id,
    )


@router.put(
    "/labels/{label:path}",
    responses={**GETTING_READY, **problems(*CHANGE)},
    openapi_extra=clips_request("LabelClipsBody", described=True) | headers(),
    operation_id="putLabel",
)
async def put_label(
    asked: AskedDep, label: Label, request: Request, service: ServiceDep, response: Response
) -> ChangedTask:
    """Add a label with its clips; one that is there gets these clips in the place of its own."""
    sent = await read_label_clips(request, label, service.limits)
    done = await service.changer.put_label(
        asked, _counted(sent, asked, service).label, allow_partial=sent.allow_partial
    )
    return await changed_view(service, done, response)


@router.patch(
    "/labels/{label:path}",
    responses={**GETTING_READY, **problems(*CHANGE)},
    openapi_extra=json_request("NameBody") | headers(),
    operation_id="renameLabel",
)
async def rename_label(
    asked: AskedDep, label: Label, request: Request, service: ServiceDep, response: Response
) -> ChangedTask:
    """Call a label otherwise; its clips stay."""
    name = read_label((await read_json(request, NameBody)).label, service.limits)
    return await changed_view(
        service, await service.changer.rename_label(asked, label, name), response
    )


@router.delete(
    "/labels/{label:path}",
    responses={**GETTING_READY, **problems(*CHANGE)},
    openapi_extra=headers(),
    operation_id="removeLabel",
)
async def remove_label(
    asked: AskedDep, label: Label, service: ServiceDep, response: Response
) -> ChangedTask:
    """Remove a label and its clips."""
    edit = edits.RemoveLabel(label, service.limits.labels[0])
    return await changed_view(service, await service.changer.edit(asked, edit), response)


@router.delete(
    "/clips/{clip_id}",
    responses={**GETTING_READY, **problems(*CHANGE)},
    openapi_extra=headers(),
    operation_id="removeClip",
)
async def remove_clip(
    asked: AskedDep, clip_id: str, service: ServiceDep, response: Response
) -> ChangedTask:
    """Remove a support clip."""
    done = await service.changer.edit(asked, edits.RemoveClip(clip_id))
    return await changed_view(service, done, response)


@router.get(
    "/clips/{clip_id}/frames",
    response_class=Response,
    responses=strips.ANSWERS,
    openapi_extra=strips.IF_NONE_MATCH,
    operation_id="clipFrames",
)
async def clip_frames(
    task_id: TaskId,
    clip_id: str,
    service: ServiceDep,
    request: Request,
    width: strips.Width = None,
) -> Response:
    """Show the pictures of a clip that are looked at, side by side in their order, as JPEG."""
    record = await service.tasks.get_decoded(task_id)
    clip = edits.clip_of(record, clip_id)
    pictures = await service.store.pictures(task_id, [clip.clip_id])
    if clip_id not in pictures:  # removed meanwhile
        raise edits.no_clip(clip_id)
    return await strips.strip_answer(pictures[clip_id], width, request)


def _counted(sent: SentLabel, asked: Asked, service: Service) -> SentLabel:
    """Replace the cost that was guessed from the body's length by that of its clips."""
    correct_cost(asked.allowance, sent.label.clips, service)
    return sent


async def changed_view(service: Service, done: Changed, response: Response) -> ChangedTask:
    """Show a task after a change, with its revision in the headers."""
    view = await view_of(service, done.record)
    response.headers["ETag"] = etag(done.record)
    if view.status != "ready":
        response.status_code = status.HTTP_202_ACCEPTED
    change = ChangeView(
        added_clips=list(done.added),
        refused_clips=[_refused(clip) for clip in done.refused],
        encoded_clips=done.encoded,
        encoded_why=done.why,
    )
    return ChangedTask(**dict(view), change=change)


def _refused(clip: RefusedClip) -> ClipProblem:
    return ClipProblem(
        index=clip.index, name=clip.name, label=clip.label, code=clip.code, detail=clip.detail
    )
