"""Multipart bodies: `support[LABEL]=@FILE`, `clip=@FILE`, and text fields beside them.

A task has two forms. In the short one a clip's field carries its label in brackets. In the other,
`label` and `clip` are repeated in step, so that every field has a name that a schema can have.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel
from starlette.datastructures import FormData, UploadFile

from model.errors import ClipError, ClipTooLargeError
from service.decoding.pool import ClipRequest
from service.errors import (
    FieldFault,
    InvalidRequestError,
    MalformedRequestError,
    UnknownFieldError,
)
from service.http.body import (
    SentQuery,
    parse_json,
    read_descriptions,
    read_label,
    read_name,
    read_ttl,
    refuse_unknown,
    validate,
)
from service.http.content import file_name
from service.http.inbox.policy import InboxField, policy_of
from service.http.schemas import Descriptions, Words
from service.limits import Limits
from service.tasks.inputs import ClipInput, NewLabel, NewTask, check_query_count

BRACKETS = re.compile(r"(support|start_s|end_s)\[(.*)\]", flags=re.DOTALL)
TASK_TEXTS = ("name", "descriptions", "ttl_s", "allow_partial", "inbox")
IN_STEP = ("label", "clip", "start_s", "end_s")
TRUTH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False, "": False}


@dataclass(slots=True)
class _Clips:
    """Clips of one label, or of a query, with their spans in the same order."""

    files: list[tuple[int, UploadFile]] = field(default_factory=list)
    start_s: list[float | None] = field(default_factory=list)
    end_s: list[float | None] = field(default_factory=list)


@dataclass(slots=True)
class _InStep:
    """The form of repeated fields: the first label is that of the first clip, and so on."""

    labels: list[str] = field(default_factory=list)
    clips: _Clips = field(default_factory=_Clips)

    @property
    def used(self) -> bool:
        return bool(self.labels or self.clips.files or self.clips.start_s or self.clips.end_s)

    def take(self, name: str, value: UploadFile | str, limits: Limits) -> None:
        if name != "label":
            _collect(self.clips, name, name, value, len(self.clips.files))
        elif isinstance(value, str):
            self.labels.append(read_label(value, limits))
        else:
            raise InvalidRequestError(
                "The field 'label' is a file; write the label of a clip as text.",
                [FieldFault("label", "a file")],
            )

    def by_label(self, others: Mapping[str, _Clips]) -> dict[str, _Clips]:
        if others:
            raise InvalidRequestError(
                "The form has both support[LABEL] and label with clip; use one of the two.",
                [FieldFault("clip", "beside support[LABEL]")],
            )
        if len(self.labels) != len(self.clips.files):
            raise InvalidRequestError(
                f"label is given {len(self.labels)} times for {len(self.clips.files)} clips; "
                "repeat it once a clip, in the same order.",
                [FieldFault("label", "not one a clip")],
            )
        _check_spans(self.clips, "")
        found: dict[str, _Clips] = {}
        for place, label in enumerate(self.labels):
            own = found.setdefault(label, _Clips())
            own.files.append(self.clips.files[place])
            for spans, mine in (
                (self.clips.start_s, own.start_s),
                (self.clips.end_s, own.end_s),
            ):
                mine += spans[place : place + 1]
        return found


async def task_of_form(form: FormData, limits: Limits) -> NewTask:
    """Read a task out of a multipart body.

    Raises:
        RequestError: A field is unknown, twice there, or not written as it must be.
    """
    texts: dict[str, str] = {}
    clips: dict[str, _Clips] = {}
    in_step = _InStep()
    for name, value in form.multi_items():
        if name in IN_STEP:
            in_step.take(name, value, limits)
        elif match := BRACKETS.fullmatch(name):
            label = read_label(_unescape(match[2]), limits)
            _collect(clips.setdefault(label, _Clips()), match[1], name, value, _total(clips))
        elif name in TASK_TEXTS:
            await _collect_text(texts, name, value)
        else:
            raise UnknownFieldError(
                f"The field {name[:100]!r} is not known here; use support[LABEL]=@FILE, "
                f"start_s[LABEL], end_s[LABEL], or {', '.join(IN_STEP)} in step; and "
                f"{', '.join(TASK_TEXTS)}.",
                [FieldFault(name[:100], "no such field; take it away")],
            )
    if in_step.used:
        clips = in_step.by_label(clips)
    refuse_unknown({of: one for of, one in clips.items() if not one.files}, "start_s or end_s")
    stages = read_descriptions(_json_of("descriptions", texts, Descriptions), limits)
    labels = [
        NewLabel(label, stages.pop(label, None), await _inputs(given, f"[{label}]", limits))
        for label, given in clips.items()
    ]
    refuse_unknown(stages, "descriptions")
    return NewTask(
        name=read_name(texts.get("name"), limits),
        ttl_s=read_ttl(number_of("ttl_s", texts["ttl_s"]) if "ttl_s" in texts else None, limits),
        allow_partial=truth_of("allow_partial", texts.get("allow_partial", "")),
        labels=tuple(labels),
        inbox=policy_of(_json_of("inbox", texts, InboxField)),
    )


async def query_of_form(form: FormData, limits: Limits) -> SentQuery:
    """Read the query of a multipart body.

    Raises:
        RequestError: A field is unknown or not written as it must be.
    """
    clips, texts = await _clips_beside(form, ("remember", "explain"))
    said = {name: truth_of(name, text) for name, text in texts.items()}
    check_query_count(len(clips.files), limits, explain=said.get("explain", False))
    return SentQuery(await _inputs(clips, "", limits), **said)


async def clips_of_form(
    form: FormData, limits: Limits, *, described: bool
) -> tuple[tuple[ClipInput, ...], bool, list[str] | None]:
    """Read clips that a label gets: the clips, `allow_partial`, and sentences if there are any.

    Raises:
        RequestError: A field is unknown or not written as it must be.
    """
    known = ("allow_partial", "descriptions") if described else ("allow_partial",)
    clips, texts = await _clips_beside(form, known)
    partial = truth_of("allow_partial", texts.get("allow_partial", ""))
    return await _inputs(clips, "", limits), partial, _json_of("descriptions", texts, Words)


async def _clips_beside(form: FormData, known: Sequence[str]) -> tuple[_Clips, dict[str, str]]:
    """Collect clips of no label, and the text fields that may stand beside them."""
    clips, texts = _Clips(), dict[str, str]()
    for name, value in form.multi_items():
        if name in ("clip", "start_s", "end_s"):
            _collect(clips, name, name, value, len(clips.files))
        elif name in known:
            await _collect_text(texts, name, value)
        else:
            raise UnknownFieldError(
                f"The field {name[:100]!r} is not known here; use clip=@FILE, start_s, end_s, "
                f"{', '.join(known)}.",
                [FieldFault(name[:100], "no such field; take it away")],
            )
    return clips, texts


def _unescape(name: str) -> str:
    """Undo what the HTML standard has clients do to names in multipart."""
    return name.replace("%22", '"').replace("%0D", "\r").replace("%0A", "\n")


def _collect(clips: _Clips, kind: str, name: str, value: UploadFile | str, index: int) -> None:
    if kind in ("start_s", "end_s"):
        spans = clips.start_s if kind == "start_s" else clips.end_s
        spans.append(number_of(name, value) if value else None)
    elif isinstance(value, UploadFile):
        clips.files.append((index, value))
    else:
        raise InvalidRequestError(
            f"The field {name[:100]!r} is text ({value[:40]!r}); a clip is a file, "
            f"so write {name[:100]}=@FILE.",
            [FieldFault(name[:100], "not a file")],
        )


def _total(clips: Mapping[str, _Clips]) -> int:
    return sum(len(given.files) for given in clips.values())


async def _collect_text(texts: dict[str, str], name: str, value: UploadFile | str) -> None:
    if name in texts:
        raise InvalidRequestError(
            f"The field {name!r} is there twice; keep one.", [FieldFault(name, "there twice")]
        )
    if isinstance(value, str):
        texts[name] = value
        return
    try:
        texts[name] = (await value.read(2**20)).decode()
    except UnicodeDecodeError:
        raise InvalidRequestError(
            f"The field {name!r} is a file that is not text; send UTF-8.",
            [FieldFault(name, "not text")],
        ) from None


def _check_spans(clips: _Clips, of: str) -> None:
    for name, spans in (("start_s", clips.start_s), ("end_s", clips.end_s)):
        if spans and len(spans) != len(clips.files):
            raise InvalidRequestError(
                f"{name}{of} is given {len(spans)} times for {len(clips.files)} clips; "
                "repeat it once a clip in the same order, empty where the clip has none.",
                [FieldFault(f"{name}{of}", "not one a clip")],
            )


async def _inputs(clips: _Clips, of: str, limits: Limits) -> tuple[ClipInput, ...]:
    _check_spans(clips, of)
    none = [None] * len(clips.files)
    return tuple(
        [
            ClipInput(index, await _source(file, start_s, end_s, limits), file_name(file.filename))
            for (index, file), start_s, end_s in zip(
                clips.files, clips.start_s or none, clips.end_s or none, strict=True
            )
        ]
    )


async def _source(
    file: UploadFile, start_s: float | None, end_s: float | None, limits: Limits
) -> ClipRequest | ClipError:
    if (size := file.size or 0) > limits.clip_bytes:
        return ClipTooLargeError(
            f"The clip has {size} bytes; shorten or compress it to {limits.clip_bytes}."
        )
    return ClipRequest(video=await file.read(), start_s=start_s, end_s=end_s)


def _json_of(name: str, texts: Mapping[str, str], kind: type[BaseModel]) -> Any:  # noqa: ANN401
    if name not in texts:
        return None
    try:
        value = parse_json(texts[name])
    except MalformedRequestError as error:
        fault = FieldFault(name, "not JSON")  # the form itself can be read
        raise InvalidRequestError(f"The field {name!r}: {error}", [fault]) from error
    return getattr(validate({name: value}, kind), name)


def number_of(name: str, value: UploadFile | str) -> float:
    """Read a field as a number.

    Raises:
        InvalidRequestError: It is none.
    """
    try:
        number = float(value) if isinstance(value, str) else math.nan
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        shown = value[:40] if isinstance(value, str) else "a file"
        raise InvalidRequestError(
            f"{name[:100]} is {shown!r}; give a number.",
            [FieldFault(name[:100], "not a number")],
        )
    return number


def truth_of(name: str, text: str) -> bool:
    """Read a field as true or false.

    Raises:
        InvalidRequestError: It is neither.
    """
    if (value := TRUTH.get(text.strip().lower())) is None:
        raise InvalidRequestError(
            f"{name} is {text[:40]!r}; give true or false.", [FieldFault(name, "not true or false")]
        )
    return value
