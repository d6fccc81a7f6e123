"""Scores of windows to spans of time: a pure function, and the same window by window.

Scores are averaged over neighbouring windows. A span of a label begins where the label is first
and reaches `enter`, and lasts while it keeps `leave`, whatever is first meanwhile (hysteresis). It
counts if the label was first, above `enter`, for `min_span_s` at a stretch. All else is background.

Each window stands for the stride around its middle; the first from the beginning of the video, the
last to its end. So every moment belongs to one span or to the background. Hysteresis never makes
more spans than `leave = enter` does: each span holds a whole stretch that would be one by itself.

Dimensions: N labels.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from model.media.sampling import SLACK_S
from model.media.windows import WindowGrid


@dataclass(frozen=True, slots=True)
class WindowScores:
    """What one window is.

    Args:
        probabilities_N: Of the labels; they sum to 1.
        nearest: Evidence that it is one of the labels at all.
    """

    probabilities_N: tuple[float, ...]
    nearest: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanRule:
    """How spans are made.

    Args:
        smooth_s: Scores are the mean over windows whose middles are at most half of this apart.
        enter: Probability at which a span begins.
        leave: Probability that it keeps; at most `enter`.
        min_span_s: Shortest stretch at `enter` that makes a span.
        unknown_below: Evidence below which no span begins.
        unknown_slack: By how much less evidence a span goes on.
    """

    smooth_s: float
    enter: float
    leave: float
    min_span_s: float
    unknown_below: float
    unknown_slack: float = 0.0

    def __post_init__(self) -> None:
        if self.leave > self.enter:
            raise ValueError(f"leave is {self.leave:g}, above enter, {self.enter:g}; lower it.")
        if self.unknown_slack < 0:
            raise ValueError(f"unknown_slack is {self.unknown_slack:g}; give 0 or more.")


@dataclass(frozen=True, slots=True)
class Span:
    """A part of the video that shows one label.

    Args:
        start_s, end_s: Where it begins and ends.
        label: Its index.
        score: Mean probability.
        peak_s: When the probability is highest.
    """

    start_s: float
    end_s: float
    label: int
    score: float
    peak_s: float


@dataclass(slots=True)
class _Open:
    """A span that has not ended yet."""

    label: int
    first: int  # window
    windows: int = 0
    total: float = 0.0
    peak: float = -1.0
    peak_at: int = 0
    entered: int | None = None  # where the stretch at `enter` began that goes on
    longest_s: float = 0.0  # of those that have ended

    def take(self, window: int, probability: float) -> None:
        self.windows += 1
        self.total += probability
        if probability > self.peak:
            self.peak, self.peak_at = probability, window


class Segmenter:
    """Takes windows in order and gives each span as soon as it has ended.

    Args:
        grid: Where the windows are.
        rule: How spans are made.
    """

    def __init__(self, grid: WindowGrid, rule: SpanRule) -> None:
        self.grid = grid
        self.rule = rule
        self.reach = int((rule.smooth_s / 2 + SLACK_S) / grid.stride_s)  # windows on each side
        self._recent: deque[np.ndarray] = deque(maxlen=2 * self.reach + 1)
        self._seen = self._judged = 0
        self._open: _Open | None = None

    @property
    def settled_s(self) -> float:
        """Up to where it is known what has ended; a span that is open may begin before."""
        return self._begins_s(self._judged if self._open is None else self._open.first)

    def push(self, window: WindowScores) -> list[Span]:
        """Take the next window; return the spans that have ended."""
        self._recent.append(np.array([*window.probabilities_N, window.nearest]))
        self._seen += 1
        return self._judge() if self._seen - self._judged > self.reach else []

    def finish(self, duration_s: float) -> list[Span]:
        """Return the spans that end with the video.

        Args:
            duration_s: Of the video.
        """
        ended: list[Span] = []
        while self._judged < self._seen:
            ended += self._judge()
        if self._open is not None:
            ended += self._end(duration_s)
        return ended

    def _judge(self) -> list[Span]:
        """Settle the oldest window that is not settled yet."""
        window = self._judged
        self._judged += 1
        oldest = self._seen - len(self._recent)
        first = max(0, window - self.reach) - oldest
        around = list(self._recent)[first : window + self.reach + 1 - oldest]
        mean = np.mean(around, axis=0)
        probabilities_N, nearest = mean[:-1], float(mean[-1])
        enters, leader = self._enters(probabilities_N, nearest)
        ended: list[Span] = []
        if self._open is not None and not self._stays(self._open, probabilities_N, nearest):
            ended = self._end(self._begins_s(window))
        if self._open is None and enters:
            self._open = _Open(leader, window)
        if (span := self._open) is not None:
            span.take(window, float(probabilities_N[span.label]))
            if not (enters and leader == span.label):
                self._end_stretch(span, self._begins_s(window))
            elif span.entered is None:
                span.entered = window
        return ended

    def _end_stretch(self, span: _Open, end_s: float) -> None:
        if span.entered is not None:
            span.longest_s = max(span.longest_s, end_s - self._begins_s(span.entered))
            span.entered = None

    def _enters(self, probabilities_N: np.ndarray, nearest: float) -> tuple[bool, int]:
        """Tell whether a span could begin here, and of which label."""
        leader = int(probabilities_N.argmax())
        known = nearest >= self.rule.unknown_below
        return known and bool(probabilities_N[leader] >= self.rule.enter), leader

    def _stays(self, span: _Open, probabilities_N: np.ndarray, nearest: float) -> bool:
        known = nearest >= self.rule.unknown_below - self.rule.unknown_slack
        return known and bool(probabilities_N[span.label] >= self.rule.leave)

    def _end(self, end_s: float) -> list[Span]:
        span, self._open = self._open, None
        assert span is not None
        self._end_stretch(span, end_s)
        if span.longest_s < self.rule.min_span_s - SLACK_S:
            return []
        start_s = self._begins_s(span.first)
        peak_s = min(max(self.grid.centre_s(span.peak_at), start_s), end_s)
        return [Span(start_s, end_s, span.label, span.total / span.windows, peak_s)]

    def _begins_s(self, window: int) -> float:
        """Return where what a window stands for begins."""
        if window == 0:
            return 0.0
        return max(0.0, self.grid.centre_s(window) - self.grid.stride_s / 2)


def segment(
    windows: Iterable[WindowScores], grid: WindowGrid, rule: SpanRule, duration_s: float
) -> list[Span]:
    """Make spans of the scores of windows.

    Args:
        windows: In order.
        grid: Where they are.
        rule: How spans are made.
        duration_s: Of the video.

    Returns:
        Spans in order; they do not overlap.
    """
    segmenter = Segmenter(grid, rule)
    spans = [span for window in windows for span in segmenter.push(window)]
    return spans + segmenter.finish(duration_s)
