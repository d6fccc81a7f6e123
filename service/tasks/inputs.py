"""What use cases are given: labels, texts and clips as a client sent them; checked and decoded."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from model.errors import ClipError
from model.media.sampling import Clip
from model.text import StageTexts, label_key
from service.background import spawn
from service.decoding.pool import ClipRequest, DecodePool
from service.decoding.turns import WorkClass
from service.errors import (
    ClipFault,
    ClipsRefusedError,
    DescriptionsMixedError,
    LabelDuplicateError,
    LabelWithoutClipsError,
    NoClipsError,
    TooFewLabelsError,
    TooManyClipsError,
    TooManyLabelsError,
)
from service.limits import Limits
from service.stores.inboxes.policy import InboxPolicy

Read = TypeVar("Read")
TextSource = Literal["client", "llm", "template"]


@dataclass(frozen=True, slots=True)
class ClipInput:
    """One clip of a request."""

    index: int  # in the order of the request
    source: ClipRequest | ClipError  # an error where reading the body was enough to refuse it
    name: str | None = None  # of the file, as it was sent

    @property
    def clip_id(self) -> str:
        """Its id within the task, which does not depend on what becomes of other clips."""
        return f"c{self.index:04d}"


@dataclass(frozen=True, slots=True)
class NewLabel:
    """One label of a new task."""

    label: str
    stages: StageTexts | None
    clips: tuple[ClipInput, ...]


@dataclass(frozen=True, slots=True)
class NewTask:
    """A new task."""

    name: str | None
    ttl_s: float | None
    allow_partial: bool
    labels: tuple[NewLabel, ...]
    inbox: InboxPolicy | None = None


def check_task(task: NewTask, limits: Limits) -> NewTask:
    """Return the task if its labels and clips are within the limits.

    Raises:
        RequestError: What is wrong first, in the order a reader would look.
    """
    labels = task.labels
    least, most = limits.labels
    if len(labels) < least:
        named = f" ({labels[0].label!r})" if labels else ""
        raise TooFewLabelsError(
            f"The task has {len(labels)} label{'' if len(labels) == 1 else 's'}{named}; "
            f"give at least {least}."
        )
    if len(labels) > most:
        raise TooManyLabelsError(f"The task has {len(labels)} labels; give at most {most}.")
    _check_distinct([label.label for label in labels])
    _check_shots(labels, limits)
    with_text = [label.label for label in labels if label.stages is not None]
    without = [label.label for label in labels if label.stages is None]
    if with_text and without:
        raise DescriptionsMixedError(
            f"Label {with_text[0]!r} has descriptions and {without[0]!r} has none; "
            "give them for every label or for none."
        )
    return task


def check_query_count(count: int, limits: Limits, *, explain: bool = False) -> None:
    """Refuse a classify request with no clip, or with too many.

    Raises:
        NoClipsError: It has none.
        TooManyClipsError: It has more than the limit.
    """
    if count == 0:
        raise NoClipsError("The request has no clip; give 1 or more.")
    if count > limits.query_clips:
        raise TooManyClipsError(
            f"The request has {count} clips; give at most {limits.query_clips}."
        )
    if explain and count > limits.explained_clips:
        raise TooManyClipsError(
            f"The request has {count} clips to explain; give at most {limits.explained_clips}, or "
            "leave out explain."
        )


async def check_clips(
    pool: DecodePool,
    inputs: Sequence[ClipInput],
    work: WorkClass,
    labels: Mapping[int, str],
    tenant: str = "",
) -> tuple[float, list[ClipFault]]:
    """Read the headers of clips; see below.

    Returns:
        Seconds of video of those that are sound, and the faults of the others, in order.
    """
    outcomes = await _each(pool, inputs, labels, lambda source: pool.check(source, work, tenant))
    return sum(each for each in outcomes if isinstance(each, float)), _faults(outcomes)


async def decode_clips(
    pool: DecodePool,
    inputs: Sequence[ClipInput],
    work: WorkClass,
    labels: Mapping[int, str] | None = None,
    done: Callable[[], None] = lambda: None,
    tenant: str = "",
) -> tuple[dict[int, Clip], list[ClipFault]]:
    """Decode clips, no more at once than the pool has workers, so that requests take turns.

    Args:
        pool: The sandboxed decoders.
        inputs: The clips.
        work: What they are decoded for.
        labels: Label by index of clip, for the faults.
        done: Called after each clip.
        tenant: Whose they are.

    Returns:
        The clips by index, and the faults in the order of the request.
    """

    async def decode(source: ClipRequest) -> Clip:
        try:
            return await pool.decode(source, work, tenant)
        finally:
            done()

    outcomes = await _each(pool, inputs, labels or {}, decode)
    clips = {
        clip.index: outcome
        for clip, outcome in zip(inputs, outcomes, strict=True)
        if isinstance(outcome, Clip)
    }
    return clips, _faults(outcomes)


def _faults(outcomes: Sequence[object]) -> list[ClipFault]:
    faults = [outcome for outcome in outcomes if isinstance(outcome, ClipFault)]
    return sorted(faults, key=lambda fault: fault.index)


async def _each(
    pool: DecodePool,
    inputs: Sequence[ClipInput],
    labels: Mapping[int, str],
    ask: Callable[[ClipRequest], Awaitable[Read]],
) -> list[Read | ClipFault]:
    free = asyncio.Semaphore(pool.workers)

    async def read(clip: ClipInput) -> Read | ClipFault:
        try:
            if isinstance(clip.source, ClipError):
                raise clip.source
            async with free:
                return await ask(clip.source)
        except ClipError as error:
            return ClipFault(clip.index, labels.get(clip.index), error, clip.name)

    reading = [spawn(read(clip)) for clip in inputs]
    try:
        return await asyncio.gather(*reading)
    finally:
        for task in reading:
            task.cancel()  # where one failed for a reason of ours, the others are not wanted


def refuse_clips(faults: Sequence[ClipFault], of: int, hint: str = "") -> ClipsRefusedError:
    """Make the refusal of a request whose clips cannot be used.

    Args:
        faults: One or more.
        of: How many clips the request has.
        hint: A further remedy.
    """
    first = faults[0]
    known = [repr(first.name)] if first.name else []
    known += [f"label {first.label!r}"] if first.label else []
    which = f"Clip {first.index}" + (f" ({', '.join(known)})" if known else "")
    others = f"; {len(faults) - 1} more of {of} cannot be used either" if len(faults) > 1 else ""
    return ClipsRefusedError(f"{which}: {str(first.error).rstrip('.')}{others}{hint}.", faults)


def digest(source: ClipRequest) -> str:
    """Return the SHA-256 of an upload, to find duplicates by."""
    parts = source.pictures if source.video is None else (source.video,)
    sha = hashlib.sha256()
    for part in parts:
        sha.update(len(part).to_bytes(8, "big") + part if source.video is None else part)
    return sha.hexdigest()


def _check_distinct(labels: Sequence[str]) -> None:
    seen: dict[str, str] = {}
    for label in labels:
        if (key := label_key(label)) in seen:
            raise LabelDuplicateError(
                f"The labels {seen[key]!r} and {label!r} read the same; "
                "put their clips under one label, or name them apart."
            )
        seen[key] = label


def _check_shots(labels: Sequence[NewLabel], limits: Limits) -> None:
    least_shots, most_shots = limits.shots
    total = sum(len(label.clips) for label in labels)
    for label in labels:
        if not label.clips and (total or least_shots):
            raise LabelWithoutClipsError(
                f"Label {label.label!r} has no clip; give it at least one, or leave it out."
            )
        if len(label.clips) > most_shots:
            raise TooManyClipsError(
                f"Label {label.label!r} has {len(label.clips)} clips; give at most {most_shots}."
            )
    if total > limits.support_clips:
        raise TooManyClipsError(f"The task has {total} clips; give at most {limits.support_clips}.")
