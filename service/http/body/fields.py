"""Reads and checks single fields, the same for both forms of a body."""

import json
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

from model.errors import DescriptionError
from model.text import StageTexts, check_stages, clean
from service.errors import (
    FieldFault,
    InvalidRequestError,
    LabelDuplicateError,
    LabelEmptyError,
    LabelTooLongError,
    LabelUnknownError,
    MalformedRequestError,
    RequestError,
)
from service.http.problems import invalid
from service.settings import Settings

BodyT = TypeVar("BodyT", bound=BaseModel)


def read_label(label: str, settings: Settings) -> str:
    """Return a label without stray white space and control characters.

    Raises:
        RequestError: Nothing is left, or too much.
    """
    cleaned = clean(label)
    if not cleaned:
        raise LabelEmptyError(
            f"The label {label[:40]!r} is empty; write what the clips show, such as 'wave'."
        )
    if len(cleaned) > settings.max_label_chars:
        raise LabelTooLongError(
            f"The label {cleaned[:40] + '...'!r} has {len(cleaned)} characters; "
            f"shorten it to {settings.max_label_chars}."
        )
    return cleaned


def read_name(name: str | None, settings: Settings) -> str | None:
    """Return a task's name, cleaned.

    Raises:
        InvalidRequestError: It is too long.
    """
    cleaned = clean(name or "")
    if len(cleaned) > settings.max_name_chars:
        raise InvalidRequestError(
            f"The name has {len(cleaned)} characters; shorten it to {settings.max_name_chars}.",
            [FieldFault("name", "too long")],
        )
    return cleaned or None


def read_ttl(ttl_s: float | None, settings: Settings) -> float | None:
    """Return how long the task lives.

    Raises:
        InvalidRequestError: Not a positive number of seconds, or too long.
    """
    if ttl_s is not None and not 0 < ttl_s <= settings.max_ttl_s:
        raise InvalidRequestError(
            f"ttl_s is {ttl_s:g}; give more than 0 and at most {settings.max_ttl_s:g} seconds.",
            [FieldFault("ttl_s", "out of range")],
        )
    return ttl_s


def read_stages(label: str, stages: list[str]) -> StageTexts:
    """Return a label's three stages.

    Raises:
        DescriptionError: They are not three usable sentences.
    """
    try:
        return check_stages(stages)
    except DescriptionError as error:
        raise DescriptionError(f"Label {label!r}: {error}") from error


def read_descriptions(texts: Mapping[str, list[str]] | None) -> dict[str, StageTexts]:
    """Return the stages by cleaned label.

    Raises:
        DescriptionError: One is not three usable sentences.
        LabelDuplicateError: Two names are the same label.
    """
    found: dict[str, StageTexts] = {}
    for label, stages in (texts or {}).items():
        if clean(label) in found:
            raise LabelDuplicateError(
                f"descriptions name the label {clean(label)!r} twice; keep one of them."
            )
        found[clean(label)] = read_stages(label, stages)
    return found


def refuse_unknown(given: Mapping[str, object], field: str) -> None:
    """Refuse what was given for labels that have no clips.

    Raises:
        LabelUnknownError: There is some.
    """
    if given:
        raise LabelUnknownError(
            f"{field} names the label {next(iter(given))[:100]!r}, which has no clips; "
            "give it clips, or correct the name."
        )


def parse_json(raw: bytes | str) -> object:
    """Parse JSON as written in RFC 8259: no NaN, no key twice, no half of a character.

    Raises:
        MalformedRequestError: It is none.
    """
    try:
        value = json.loads(raw, object_pairs_hook=_distinct, parse_constant=_no_constant)
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
    raise MalformedRequestError(f"The JSON has {name}, which is no number there; write a number.")
