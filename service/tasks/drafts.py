"""What a client asks for, read but not yet decoded: values between a body and a use case."""

from collections.abc import Sequence
from dataclasses import dataclass

from model.errors import ClipError
from model.text import StageTexts
from service.decoding.pool import ClipRequest
from service.errors import (
    DescriptionsMixedError,
    LabelDuplicateError,
    LabelWithoutClipsError,
    NoClipsError,
    TooFewLabelsError,
    TooManyClipsError,
    TooManyLabelsError,
)
from service.settings import Settings

MIN_LABELS = 2


@dataclass(frozen=True, slots=True)
class ClipDraft:
    """One clip of a request."""

    index: int  # in the order of the request
    source: ClipRequest | ClipError  # an error where reading the body was enough to refuse it


@dataclass(frozen=True, slots=True)
class LabelDraft:
    """One label of a new task."""

    label: str
    stages: StageTexts | None
    clips: tuple[ClipDraft, ...]


@dataclass(frozen=True, slots=True)
class TaskDraft:
    """A new task."""

    name: str | None
    ttl_s: float | None
    allow_partial: bool
    labels: tuple[LabelDraft, ...]


def check_draft(draft: TaskDraft, settings: Settings) -> TaskDraft:
    """Return the draft if its labels make a task.

    Raises:
        RequestError: What is wrong first, in the order a reader would look.
    """
    labels = draft.labels
    if len(labels) < MIN_LABELS:
        named = f" ({labels[0].label!r})" if labels else ""
        raise TooFewLabelsError(
            f"The task has {len(labels)} label{'' if len(labels) == 1 else 's'}{named}; "
            f"give at least {MIN_LABELS}, as multipart support[LABEL]=@FILE or JSON labels[]."
        )
    if len(labels) > settings.max_labels:
        raise TooManyLabelsError(
            f"The task has {len(labels)} labels; give at most {settings.max_labels}."
        )
    _check_distinct([label.label for label in labels])
    _check_shots(labels, settings)
    with_text = [label.label for label in labels if label.stages is not None]
    without = [label.label for label in labels if label.stages is None]
    if with_text and without:
        raise DescriptionsMixedError(
            f"Label {with_text[0]!r} has descriptions and {without[0]!r} has none; "
            "give them for every label or for none."
        )
    return draft


def check_query_count(count: int, settings: Settings) -> None:
    """Refuse a classify request with no clip, or with too many.

    Raises:
        RequestError: It is so.
    """
    if count == 0:
        raise NoClipsError(
            "The request has no clip; give 1 or more, as multipart clip=@FILE or JSON clips[]."
        )
    if count > settings.max_query_clips:
        raise TooManyClipsError(
            f"The request has {count} clips; give at most {settings.max_query_clips}."
        )


def _check_distinct(labels: Sequence[str]) -> None:
    seen: dict[str, str] = {}
    for label in labels:
        if (same := seen.setdefault(label.casefold(), label)) != label or labels.count(label) > 1:
            raise LabelDuplicateError(
                f"The labels {same!r} and {label!r} read the same; "
                "put their clips under one label, or name them apart."
            )


def _check_shots(labels: Sequence[LabelDraft], settings: Settings) -> None:
    for label in labels:
        if not label.clips:
            raise LabelWithoutClipsError(
                f"Label {label.label!r} has no clip; give it at least one, or leave it out."
            )
        if len(label.clips) > settings.max_shots:
            raise TooManyClipsError(
                f"Label {label.label!r} has {len(label.clips)} clips; "
                f"give at most {settings.max_shots}."
            )
    total = sum(len(label.clips) for label in labels)
    if total > settings.max_support_clips:
        raise TooManyClipsError(
            f"The task has {total} clips; give at most {settings.max_support_clips}."
        )
