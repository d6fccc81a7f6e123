"""Bodies of requests, in JSON or multipart, read into the values that use cases take."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import NoReturn

from fastapi import Request
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException

from model.errors import ClipError, ClipTooLargeError, PictureCountError
from service.decoding.pool import ClipRequest
from service.errors import (
    DescriptionsMixedError,
    FieldFault,
    InvalidRequestError,
    MalformedRequestError,
    MediaTypeError,
    TooManyClipsError,
)
from service.http.fields import (
    parse_json,
    read_descriptions,
    read_label,
    read_name,
    read_stages,
    read_ttl,
    refuse_unknown,
    validate,
)
from service.http.multipart import query_of_form, task_of_form
from service.http.schemas import ClipBody, QueryBody, TaskBody
from service.limits import Limits
from service.tasks.inputs import ClipInput, NewLabel, NewTask, check_query_count, check_task

MULTIPART = "multipart/form-data"
JSON = "application/json"
MAX_TEXT_PART_BYTES = 2**20
MAX_TEXT_PARTS = 1000


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
        async with _form(request, limits.support_clips) as form:
            task = await task_of_form(form, limits)
    return check_task(task, limits)


async def read_query(request: Request, limits: Limits) -> tuple[ClipInput, ...]:
    """Read the body of POST /tasks/{id}/classify.

    Raises:
        RequestError: The body cannot be used.
    """
    if content_type(request) == JSON:
        raw = await request.body()
        return await asyncio.to_thread(
            lambda: query_of_json(validate(parse_json(raw), QueryBody), limits)
        )
    async with _form(request, limits.query_clips) as form:
        return await query_of_form(form, limits)


def content_type(request: Request) -> str:
    """Return the content type of the body.

    Raises:
        MediaTypeError: It is neither JSON nor multipart.
    """
    found = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if found not in (JSON, MULTIPART):
        raise MediaTypeError(
            f"The content type {found[:80]!r} is not read here; send {MULTIPART} or {JSON}."
        )
    return found


def task_of_json(body: TaskBody, limits: Limits) -> NewTask:
    """Read a task out of a JSON body.

    Raises:
        RequestError: A label, a description or a clip is not written as it must be.
    """
    index = count()
    texts = read_descriptions(body.descriptions, limits)
    labels = []
    for place, item in enumerate(body.labels):
        label = read_label(item.label, limits)
        stages = texts.pop(label, None)
        if item.descriptions is not None:
            if body.descriptions is not None:
                raise DescriptionsMixedError(
                    f"Descriptions of {label!r} stand both in its label and beside the labels; "
                    "give them in one place."
                )
            stages = read_stages(label, item.descriptions, limits)
        clips = tuple(
            ClipInput(next(index), _clip(clip, f"labels.{place}.clips.{number}", limits))
            for number, clip in enumerate(item.clips)
        )
        labels.append(NewLabel(label, stages, clips))
    refuse_unknown(texts, "descriptions")
    return NewTask(
        name=read_name(body.name, limits),
        ttl_s=read_ttl(body.ttl_s, limits),
        allow_partial=body.allow_partial,
        labels=tuple(labels),
    )


def query_of_json(body: QueryBody, limits: Limits) -> tuple[ClipInput, ...]:
    """Read the clips of a JSON body.

    Raises:
        RequestError: A clip is not written as it must be.
    """
    check_query_count(len(body.clips), limits)
    return tuple(
        ClipInput(index, _clip(clip, f"clips.{index}", limits))
        for index, clip in enumerate(body.clips)
    )


def _clip(body: ClipBody, field: str, limits: Limits) -> ClipRequest | ClipError:
    if (body.video is None) == (body.frames is None):
        which = "both video and frames" if body.video is not None else "neither video nor frames"
        raise InvalidRequestError(
            f"{field} has {which}; give exactly one of them.", [FieldFault(field, which)]
        )
    parts = tuple(body.frames or ()) if body.video is None else (body.video,)
    size = sum(map(len, parts))
    if size > limits.clip_base64_bytes:
        return ClipTooLargeError(
            f"A clip in JSON has {size} bytes; at most {limits.clip_base64_bytes} "
            "go into JSON, so send it as a multipart file or shorten it."
        )
    if body.video is not None:
        return ClipRequest(video=body.video, start_s=body.start_s, end_s=body.end_s)
    if not parts:
        least, most = limits.pictures
        return PictureCountError(
            f"{field}.frames is empty; give {least} to {most} pictures in order."
        )
    return ClipRequest(video=None, pictures=parts, start_s=body.start_s, end_s=body.end_s)


@asynccontextmanager
async def _form(request: Request, max_clips: int) -> AsyncIterator[FormData]:
    """Parse a multipart body, its files spooled to disk, and close them at the end."""
    try:
        form = await request.form(
            max_files=max_clips, max_fields=MAX_TEXT_PARTS, max_part_size=MAX_TEXT_PART_BYTES
        )
    except HTTPException as error:
        _refuse_form(str(error.detail), max_clips)
    try:
        yield form
    finally:
        await form.close()


def _refuse_form(reason: str, max_clips: int) -> NoReturn:
    if reason.startswith("Too many files"):
        raise TooManyClipsError(f"The request has more than {max_clips} files; send fewer.")
    raise MalformedRequestError(
        f"The multipart body cannot be read: {reason.rstrip('.')}; let an HTTP client write it."
    )
