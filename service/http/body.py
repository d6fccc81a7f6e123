"""Bodies of requests: their single fields, alike in multipart and JSON, and JSON bodies whole."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

from model.errors import ClipError, ClipTooLargeError, DescriptionError, PictureCountError
from model.text import StageTexts, check_stages, clean, label_key
from service.decoding.pool import ClipRequest
from service.errors import (
    DescriptionsMixedError,
    FieldFault,
    InvalidRequestError,
    LabelDuplicateError,
    LabelEmptyError,
    LabelTooLongError,
    LabelUnknownError,
    MalformedRequestError,
    RequestError,
)
from service.http.content import file_name
from service.http.inbox.policy import policy_of
from service.http.problems import invalid
from service.http.schemas import ClipBody, QueryBody, TaskBody
from service.limits import Limits
from service.tasks.inputs import ClipInput, NewLabel, NewTask, check_query_count

BodyT = TypeVar("BodyT", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class SentQuery:
    """Clips to classify; whether they are remembered (None leaves it to the task), explained."""

    clips: tuple[ClipInput, ...]
    remember: bool | None = None
    explain: bool = False


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
        clips = clips_of_json(item.clips, f"labels.{place}.clips", limits, index)
        labels.append(NewLabel(label, stages, clips))
    refuse_unknown(texts, "descriptions")
    return NewTask(
        name=read_name(body.name, limits),
        ttl_s=read_ttl(body.ttl_s, limits),
        allow_partial=body.allow_partial,
        labels=tuple(labels),
        inbox=policy_of(body.inbox),
    )


def query_of_json(body: QueryBody, limits: Limits) -> SentQuery:
    """Read the query of a JSON body.

    Raises:
        RequestError: A clip is not written as it must be.
    """
    check_query_count(len(body.clips), limits, explain=body.explain)
    return SentQuery(clips_of_json(body.clips, "clips", limits), body.remember, body.explain)


def clips_of_json(
    clips: Sequence[ClipBody], field: str, limits: Limits, index: Iterator[int] | None = None
) -> tuple[ClipInput, ...]:
    """Read clips of JSON.

    Args:
        clips: The clips.
        field: Where they stand.
        limits: Of a clip.
        index: Gives each its place in the request; None counts from 0.

    Raises:
        InvalidRequestError: One is not written as it must be.
    """
    index = index or count()
    return tuple(
        ClipInput(next(index), _clip(clip, f"{field}.{number}", limits), file_name(clip.name))
        for number, clip in enumerate(clips)
    )


def read_label(label: str, limits: Limits) -> str:
    """Return a label without stray white space and control characters.

    Raises:
        RequestError: Nothing is left, or too much.
    """
    cleaned = clean(label)
    if not cleaned:
        raise LabelEmptyError(
            f"The label {label[:40]!r} is empty; write what the clips show, such as 'wave'."
        )
    if len(cleaned) > limits.label_chars:
        raise LabelTooLongError(
            f"The label {cleaned[:40] + '...'!r} has {len(cleaned)} characters; "
            f"shorten it to {limits.label_chars}."
        )
    return cleaned


def read_name(name: str | None, limits: Limits) -> str | None:
    """Return a task's name, cleaned.

    Raises:
        InvalidRequestError: It is too long.
    """
    cleaned = clean(name or "")
    if len(cleaned) > limits.name_chars:
        raise InvalidRequestError(
            f"The name has {len(cleaned)} characters; shorten it to {limits.name_chars}.",
            [FieldFault("name", "too long")],
        )
    return cleaned or None


def read_ttl(ttl_s: float | None, limits: Limits) -> float | None:
    """Return how long the task lives.

    Raises:
        InvalidRequestError: Not a positive number of seconds, or too long.
    """
    if ttl_s is not None and not 0 < ttl_s <= limits.ttl_s:
        raise InvalidRequestError(
            f"ttl_s is {ttl_s:g}; give more than 0 and at most {limits.ttl_s:g} seconds.",
            [FieldFault("ttl_s", "out of range")],
        )
    return ttl_s


def read_stages(label: str, stages: list[str], limits: Limits) -> StageTexts:
    """Return the sentences that describe a label.

    Raises:
        DescriptionError: They are not as many usable sentences as the method wants.
    """
    try:
        return check_stages(stages, limits.stages)
    except DescriptionError as error:
        raise DescriptionError(f"Label {label!r}: {error}") from error


def read_descriptions(
    texts: Mapping[str, list[str]] | None, limits: Limits
) -> dict[str, StageTexts]:
    """Return the sentences by cleaned label.

    Raises:
        DescriptionError: A label has another number of usable sentences than the method wants.
        LabelDuplicateError: Two names are the same label.
    """
    found: dict[str, StageTexts] = {}
    spellings: dict[str, str] = {}
    for label, stages in (texts or {}).items():
        if (first := spellings.setdefault(label_key(label), label)) != label:
            raise LabelDuplicateError(
                f"descriptions name one label twice, as {first[:100]!r} and {label[:100]!r}; "
                "keep one of them."
            )
        found[clean(label)] = read_stages(label, stages, limits)
    return found


def refuse_unknown(by_label: Mapping[str, object], field: str) -> None:
    """Refuse what is left over for labels that have no clips.

    Raises:
        LabelUnknownError: Something is left.
    """
    if by_label:
        raise LabelUnknownError(
            f"{field} names the label {next(iter(by_label))[:100]!r}, which has no clips; "
            "give it clips, or correct the name."
        )


def parse_json(raw: bytes | str) -> object:
    """Parse JSON as RFC 8259 has it: no NaN, no key twice in an object, no lone surrogate.

    Raises:
        MalformedRequestError: It is not such JSON.
    """
    try:
        text = raw.decode("utf-8-sig") if isinstance(raw, bytes) else raw  # json would guess
        value = json.loads(text, object_pairs_hook=_distinct, parse_constant=_no_constant)
        json.dumps(value, ensure_ascii=False).encode() if _may_hold_surrogates(raw) else None
    except RequestError:
        raise
    except (ValueError, RecursionError) as error:
        reason = "it nests too deeply" if isinstance(error, RecursionError) else str(error)
        raise MalformedRequestError(
            f"The JSON cannot be read: {reason[:120]}; correct it."
        ) from error
    return value


def validate(value: object, kind: type[BodyT]) -> BodyT:
    """Return the value as a `kind`.

    Raises:
        RequestError: It has another form; every field at fault is named.
    """
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False)
        raise invalid([dict(fault) for fault in faults]) from None


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


def _may_hold_surrogates(raw: bytes | str) -> bool:
    """Look for escapes first: base64 has none, and a copy of megabytes in lower case is saved."""
    if isinstance(raw, bytes):
        return b"\\" in raw and b"\\ud" in raw.lower()
    return "\\" in raw and "\\ud" in raw.lower()


def _distinct(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise MalformedRequestError(
                f"The JSON has the key {key[:100]!r} twice in one object; keep one of them."
            )
        result[key] = value
    return result


def _no_constant(name: str) -> NoReturn:
    raise MalformedRequestError(
        f"The JSON has {name}, which is not a number of JSON; write a number."
    )
