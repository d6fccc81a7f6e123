"""Reads a request's body, whichever form it has."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NoReturn

from fastapi import Request
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException

from service.errors import MalformedRequestError, MediaTypeError, TooManyClipsError
from service.http.body.fields import parse_json, validate
from service.http.body.forms import query_of_form, task_of_form
from service.http.body.jsons import query_of_json, task_of_json
from service.http.schemas import QueryBody, TaskBody
from service.settings import Settings
from service.tasks.drafts import ClipDraft, TaskDraft, check_draft

MULTIPART = "multipart/form-data"
JSON = "application/json"
MAX_TEXT_PART_BYTES = 2**20
MAX_TEXT_PARTS = 1000


async def read_task(request: Request, settings: Settings) -> TaskDraft:
    """Read the body of POST /tasks.

    Raises:
        RequestError: The body, or the task it asks for, cannot be used.
    """
    if content_type(request) == JSON:
        raw = await request.body()
        draft = await asyncio.to_thread(
            lambda: task_of_json(validate(parse_json(raw), TaskBody), settings)
        )
    else:
        async with _form(request, settings.max_support_clips) as form:
            draft = await task_of_form(form, settings)
    return check_draft(draft, settings)


async def read_query(request: Request, settings: Settings) -> tuple[ClipDraft, ...]:
    """Read the body of POST /tasks/{id}/classify.

    Raises:
        RequestError: The body cannot be used.
    """
    if content_type(request) == JSON:
        raw = await request.body()
        return await asyncio.to_thread(
            lambda: query_of_json(validate(parse_json(raw), QueryBody), settings)
        )
    async with _form(request, settings.max_query_clips) as form:
        return await query_of_form(form, settings)


def content_type(request: Request) -> str:
    """Tell which of the two forms the body has.

    Raises:
        MediaTypeError: Neither.
    """
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given not in (JSON, MULTIPART):
        raise MediaTypeError(
            f"The content type {given[:80]!r} is not read here; send {MULTIPART} or {JSON}."
        )
    return given


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
