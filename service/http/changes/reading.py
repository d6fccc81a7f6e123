"""Requests that change a task, read into values: bodies, labels of paths, expected revisions."""

import asyncio
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel

from model.text import StageTexts
from service.errors import (
    FieldFault,
    InvalidRequestError,
    LabelWithoutClipsError,
    MediaTypeError,
    TooManyClipsError,
)
from service.http.body import (
    clips_of_json,
    parse_json,
    read_name,
    read_stages,
    read_ttl,
    validate,
)
from service.http.changes.schemas import ClipsBody, LabelClipsBody, SettingsBody
from service.http.content import JSON, content_type, form_of
from service.http.inbox.policy import policy_of
from service.http.multipart import clips_of_form
from service.limits import Limits
from service.stores.inboxes.policy import InboxPolicy
from service.tasks.changes.edits import Revisions, Settings
from service.tasks.inputs import ClipInput, NewLabel

BodyT = TypeVar("BodyT", bound=BaseModel)
TAG = re.compile(r'\s*(W/)?"([^"]*)"\s*(?:,|$)')
REVISION = re.compile(r"[1-9][0-9]{0,15}")


@dataclass(frozen=True, slots=True)
class SentLabel:
    """A label with its clips, as a body has them."""

    label: NewLabel
    allow_partial: bool


def read_if_match(values: Sequence[str]) -> Revisions | None:
    """Read the revisions that a change is meant for; None is any.

    Raises:
        InvalidRequestError: The header is no list of entity tags.
    """
    text = ", ".join(values).strip()
    if not values or text == "*":
        return None
    found, at = set(), 0
    while at < len(text):
        if (tag := TAG.match(text, at)) is None:
            raise InvalidRequestError(
                f"If-Match is {text[:80]!r}; send the ETag of an answer as it was, quotes "
                'included, such as "3".',
                [FieldFault("If-Match", "no entity tag")],
            )
        if not tag[1] and REVISION.fullmatch(tag[2]):  # a weak tag matches nothing
            found.add(int(tag[2]))
        at = tag.end()
    return frozenset(found)


async def read_json(request: Request, kind: type[BodyT]) -> BodyT:
    """Read a body that is JSON and nothing else.

    Raises:
        RequestError: It cannot be used.
    """
    if content_type(request) != JSON:
        raise MediaTypeError(f"This route reads {JSON} alone; send that.")
    return validate(parse_json(await request.body()), kind)


def settings_of(body: SettingsBody, limits: Limits) -> Settings:
    """Return what a body asks to change of a task itself.

    Raises:
        InvalidRequestError: Nothing, or a value that is not allowed.
    """
    sent = body.model_fields_set
    if not sent:
        raise InvalidRequestError(
            "The body changes nothing; send name, ttl_s, unknown_below or inbox.",
            [FieldFault("body", "is empty")],
        )
    fields: dict[str, str | float | InboxPolicy | None] = {}
    if "name" in sent:
        fields["name"] = read_name(body.name, limits)
    if "ttl_s" in sent:
        ttl_s = read_ttl(body.ttl_s, limits)
        fields["expires_at"] = None if ttl_s is None else time.time() + ttl_s
    if "unknown_below" in sent:
        fields["unknown_below"] = body.unknown_below
    if "inbox" in sent:
        fields["inbox"] = policy_of(body.inbox)
    return Settings(fields)


async def read_clips(request: Request, label: str, limits: Limits) -> SentLabel:
    """Read clips that a label gets.

    Raises:
        RequestError: The body cannot be used.
    """
    return await _read(request, label, limits, ClipsBody)


async def read_label_clips(request: Request, label: str, limits: Limits) -> SentLabel:
    """Read a label's clips, and its sentences where they are there.

    Raises:
        RequestError: The body cannot be used.
    """
    return await _read(request, label, limits, LabelClipsBody)


async def _read(request: Request, label: str, limits: Limits, kind: type[ClipsBody]) -> SentLabel:
    stages: StageTexts | None = None
    if content_type(request) == JSON:
        raw = await request.body()
        body = await asyncio.to_thread(lambda: validate(parse_json(raw), kind))
        clips, partial = clips_of_json(body.clips, "clips", limits), body.allow_partial
        words = body.descriptions if isinstance(body, LabelClipsBody) else None
    else:
        async with form_of(request, limits.shots[1]) as form:
            described = kind is LabelClipsBody
            clips, partial, words = await clips_of_form(form, limits, described=described)
    if words is not None:
        stages = read_stages(label, words, limits)
    _check_count(label, clips, limits)
    return SentLabel(NewLabel(label, stages, clips), partial)


def _check_count(label: str, clips: Sequence[ClipInput], limits: Limits) -> None:
    if not clips:
        raise LabelWithoutClipsError(f"The request has no clip for {label!r}; send at least one.")
    if len(clips) > limits.shots[1]:
        raise TooManyClipsError(
            f"The request has {len(clips)} clips for {label!r}; a label has at most "
            f"{limits.shots[1]}."
        )
