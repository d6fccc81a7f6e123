"""A request for a timeline, read into values; its video stays in a file on disk."""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from typing import BinaryIO

from fastapi import Request
from starlette.datastructures import FormData, UploadFile

from model.errors import ClipTooLargeError
from service.errors import (
    FieldFault,
    InvalidRequestError,
    NoClipsError,
    NotAcceptableError,
    UnknownFieldError,
)
from service.http.body import parse_json, validate
from service.http.content import JSON, content_type, file_name, form_of
from service.http.multipart import number_of, truth_of
from service.http.timeline.schemas import TimelineBody, TimelineFields
from service.limits import Limits
from service.tasks.timeline.asked import ENTER, TimelineOptions

EVENTS, CSV, VTT = "text/event-stream", "text/csv", "text/vtt"
FORMS = (JSON, EVENTS, CSV, VTT)
ANY = {"*/*": JSON, "application/*": JSON, "text/*": CSV}
NUMBERS = tuple(field.name for field in fields(TimelineOptions))


@dataclass(frozen=True, slots=True)
class SentVideo:
    """A video with what was asked about it.

    Args:
        file: On disk, under no name.
        name: Of its file, as it was sent.
        options: How it is to be looked at.
        scores: Whether the scores of windows are wanted.
    """

    file: BinaryIO
    name: str | None
    options: TimelineOptions
    scores: bool


def form_of_answer(accept: str) -> str:
    """Choose the form of the answer: the first of those that the client likes best.

    Raises:
        NotAcceptableError: It takes none of them.
    """
    wanted: list[tuple[float, str]] = []
    for part in (accept or "*/*").split(","):
        kind, *parameters = (piece.strip().lower() for piece in part.split(";"))
        quality = next((each[2:] for each in parameters if each.startswith("q=")), "1")
        try:
            wanted.append((float(quality), kind))
        except ValueError:
            continue
    for weight, kind in sorted(wanted, key=lambda each: -each[0]):
        if weight > 0 and (found := ANY.get(kind, kind)) in FORMS:
            return found
    raise NotAcceptableError(
        f"The header Accept is {accept[:80]!r}; a timeline comes as one of {', '.join(FORMS)}."
    )


@asynccontextmanager
async def sent_video(request: Request, limits: Limits) -> AsyncIterator[SentVideo]:
    """Read the body; its file is open during the context.

    Raises:
        RequestError: It cannot be used.
    """
    if content_type(request) == JSON:
        raw = await request.body()
        sent = await asyncio.to_thread(_of_json, raw, limits)
    else:
        async with form_of(request, 1) as form:
            sent = await _of_form(form, limits)
    try:
        yield sent
    finally:
        sent.file.close()


def _of_json(raw: bytes, limits: Limits) -> SentVideo:
    body = validate(parse_json(raw), TimelineBody)
    if (size := len(body.clip.video)) > limits.clip_base64_bytes:
        raise ClipTooLargeError(
            f"A video in JSON has {size} bytes; at most {limits.clip_base64_bytes} go into JSON, "
            "so send it as a multipart file."
        )
    options = _options(body)
    file = tempfile.TemporaryFile()  # noqa: SIM115  whoever gets it closes it
    file.write(body.clip.video)
    file.flush()
    return SentVideo(file, file_name(body.clip.name), options, body.scores)


async def _of_form(form: FormData, limits: Limits) -> SentVideo:
    video: UploadFile | None = None
    found: dict[str, float | bool] = {}
    for name, value in form.multi_items():
        if name in found or (name == "clip" and video is not None):
            raise InvalidRequestError(
                f"The field {name!r} is there twice; keep one.", [FieldFault(name, "there twice")]
            )
        if name == "clip" and isinstance(value, UploadFile):
            video = value
        elif name in NUMBERS:
            found[name] = number_of(name, value)
        elif name == "scores" and isinstance(value, str):
            found[name] = truth_of(name, value)
        else:
            known = name in ("clip", "scores")
            raise (InvalidRequestError if known else UnknownFieldError)(
                f"The field {name[:100]!r} is not used so here; use clip=@FILE, scores, "
                f"{', '.join(NUMBERS)}.",
                [FieldFault(name[:100], "not so" if known else "no such field; take it away")],
            )
    options = validate(found, TimelineFields)
    if video is None:
        raise NoClipsError("The request has no video; give one.")
    if (size := video.size or 0) > limits.clip_bytes:
        raise ClipTooLargeError(
            f"The video has {size} bytes, {limits.clip_bytes} are allowed; cut it, or encode it at "
            "a lower bit rate."
        )
    asked = _options(options)
    file = await asyncio.to_thread(_own, video.file)
    return SentVideo(file, file_name(video.filename), asked, options.scores)


def _own(spooled: BinaryIO) -> BinaryIO:
    """Return a file of our own of an upload, which is on disk from then on."""
    spooled.flush()
    return os.fdopen(os.dup(spooled.fileno()), "rb")


def _options(body: TimelineFields) -> TimelineOptions:
    enter = ENTER if body.enter is None else body.enter
    if body.leave is not None and body.leave > enter:
        raise InvalidRequestError(
            f"leave is {body.leave:g}, above enter, {enter:g}; lower it, or raise enter.",
            [FieldFault("leave", "above enter")],
        )
    return TimelineOptions(**{name: getattr(body, name) for name in NUMBERS})
