"""What a client asks of a timeline, and what is taken where it does not say."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from model.media.windows import WindowGrid
from model.timeline.segments import SpanRule
from service.errors import FieldFault, InvalidRequestError
from service.stores.records import ClipRecord

UNTIMED_WINDOW_S = 2.0  # where no clip of the task says how long its action lasts
STRIDE_PART = 4  # windows begin a window's length through this apart
MOST_OVERLAP = 16  # likewise at the least: it bounds the pictures that are held, and the work
# Chosen by tests.bench.search_spans, see tests/bench/figures/2026-11-29-timeline.md.
ENTER, LEAVE = 0.5, 0.5
UNKNOWN_SLACK = 0.0
SMOOTH_PART, MIN_SPAN_PART = 0.0, 0.75  # of a window's length
NO_LENGTH = (
    "No clip of the task says how long its action lasts, so windows are {:g} s long; give window_s."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineOptions:
    """What a client may set; None is the default. See `SpanRule` for the last ones."""

    window_s: float | None = None
    stride_s: float | None = None
    smooth_s: float | None = None
    enter: float | None = None
    leave: float | None = None
    min_span_s: float | None = None
    unknown_below: float | None = None
    unknown_slack: float | None = None


@dataclass(frozen=True, slots=True)
class TimelinePlan:
    """How a video is looked at."""

    grid: WindowGrid
    rule: SpanRule
    warnings: tuple[str, ...] = ()


def plan_of(
    options: TimelineOptions, clips: Sequence[ClipRecord], frames: int, threshold: float
) -> TimelinePlan:
    """Fill in what a client leaves out.

    Args:
        options: What it says.
        clips: Of the task.
        frames: T of a window.
        threshold: The task's, of `nearest`.

    Raises:
        InvalidRequestError: Windows begin too close to each other.
    """
    known_s = options.window_s or usual_length_s(clips)
    window_s = known_s or UNTIMED_WINDOW_S
    warnings = () if known_s else (NO_LENGTH.format(window_s),)
    stride_s = options.stride_s or window_s / STRIDE_PART
    if stride_s < window_s / MOST_OVERLAP:
        raise InvalidRequestError(
            f"stride_s is {stride_s:g}, and windows are {window_s:g} s long; give "
            f"{window_s / MOST_OVERLAP:.3g} or more, or a shorter window_s.",
            [FieldFault("stride_s", f"less than window_s / {MOST_OVERLAP}")],
        )
    grid = WindowGrid.of(frames, window_s, stride_s)
    enter = ENTER if options.enter is None else options.enter
    below = threshold if options.unknown_below is None else options.unknown_below
    rule = SpanRule(
        smooth_s=_or(options.smooth_s, SMOOTH_PART * window_s),
        enter=enter,
        leave=_or(options.leave, min(LEAVE, enter)),
        min_span_s=_or(options.min_span_s, MIN_SPAN_PART * window_s),
        unknown_below=below,
        unknown_slack=_or(options.unknown_slack, UNKNOWN_SLACK),
    )
    return TimelinePlan(grid, rule, warnings)


def usual_length_s(clips: Sequence[ClipRecord]) -> float | None:
    """Return the median length of what is looked at in clips; None where none is timed."""
    lengths_s = [
        _length_s(clip)
        for clip in clips
        if clip.codec not in ("pictures", "") and len(clip.frames_s) > 1
    ]
    usual_s = statistics.median(lengths_s) if lengths_s else 0.0
    return usual_s or None


def _length_s(clip: ClipRecord) -> float:
    """Return the length of a clip, or of the part of it that was registered.

    Instants stand in the centres of equal spans, so those of T cover T times their distance, but
    for the pictures' own length.
    """
    frames = len(clip.frames_s)
    covered_s = (clip.frames_s[-1] - clip.frames_s[0]) * frames / (frames - 1)
    whole = abs(covered_s - clip.duration_s) <= clip.duration_s / frames
    return clip.duration_s if whole else covered_s


def _or(given: float | None, default: float) -> float:
    return default if given is None else given
