"""Windows to spans, whatever the scores are."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.media.windows import WindowGrid
from model.timeline.segments import Segmenter, Span, SpanRule, WindowScores, segment

GRID = WindowGrid.of(8, 1.2, 0.3)
PLAIN = SpanRule(smooth_s=0, enter=0.5, leave=0.5, min_span_s=0, unknown_below=-1)
SHARES = st.floats(0, 1)


@st.composite
def videos(draw: st.DrawFn) -> tuple[list[WindowScores], WindowGrid, SpanRule, float]:
    """Scores of a few windows in runs, a grid, a rule, and the video's duration."""
    labels = draw(st.integers(2, 4))
    windows: list[WindowScores] = []
    for _ in range(draw(st.integers(1, 6))):
        weights = draw(st.lists(st.floats(0.01, 1), min_size=labels, max_size=labels))
        share = tuple(weight / sum(weights) for weight in weights)
        scores = WindowScores(share, draw(st.floats(-1, 1)))
        windows += [scores] * draw(st.integers(1, 4))
    window_s = draw(st.floats(0.2, 5))
    grid = WindowGrid.of(draw(st.integers(1, 8)), window_s, draw(st.floats(0.05, 2 * window_s)))
    enter = draw(SHARES)
    rule = SpanRule(
        smooth_s=draw(st.floats(0, 3)),
        enter=enter,
        leave=draw(st.floats(0, enter)),
        min_span_s=draw(st.floats(0, 3)),
        unknown_below=draw(st.floats(-1, 1)),
        unknown_slack=draw(st.floats(0, 1)),
    )
    ends_s = grid.start_s(len(windows) - 1) + grid.window_s
    return windows, grid, rule, ends_s + draw(st.floats(0, 0.99)) * grid.stride_s


@given(videos())
def test_spans_are_ordered_do_not_overlap_and_lie_in_the_video(
    video: tuple[list[WindowScores], WindowGrid, SpanRule, float],
) -> None:
    *_, duration_s = video
    spans = segment(*video)
    edges = [edge for span in spans for edge in (span.start_s, span.end_s)]
    assert edges == sorted(edges)
    for span in spans:
        assert 0 <= span.start_s < span.end_s <= duration_s
        assert span.start_s <= span.peak_s <= span.end_s
        assert 0 <= span.score <= 1 + 1e-9


@given(videos())
def test_every_window_belongs_to_one_span_or_to_the_background(
    video: tuple[list[WindowScores], WindowGrid, SpanRule, float],
) -> None:
    windows, grid, _, duration_s = video
    spans = segment(*video)
    middles_s = [min(grid.centre_s(window), duration_s) for window in range(len(windows))]
    half_s = grid.stride_s / 2
    edges_s = [0.0, *(max(0.0, middle_s - half_s) for middle_s in middles_s[1:]), duration_s]
    for begins_s, ends_s in pairwise(edges_s):  # what each window stands for
        touching = [span for span in spans if span.start_s < ends_s and begins_s < span.end_s]
        assert len(touching) <= 1 or ends_s <= begins_s
        for span in touching:
            assert span.start_s <= begins_s
            assert ends_s <= span.end_s


@given(videos())
def test_hysteresis_never_makes_more_spans_than_without(
    video: tuple[list[WindowScores], WindowGrid, SpanRule, float],
) -> None:
    windows, grid, given_rule, duration_s = video
    rule = replace(given_rule, min_span_s=0.0)  # short ones are dropped, and hysteresis joins some
    without = replace(rule, leave=rule.enter, unknown_slack=0)
    more, fewer = (segment(windows, grid, each, duration_s) for each in (without, rule))
    assert len(fewer) <= len(more)


@given(videos())
def test_what_has_settled_does_not_change(
    video: tuple[list[WindowScores], WindowGrid, SpanRule, float],
) -> None:
    windows, grid, rule, _ = video
    whole = segment(*video)
    segmenter, told = Segmenter(grid, rule), list[Span]()
    for window in windows:
        told += segmenter.push(window)
        settled = [span for span in whole if span.end_s <= segmenter.settled_s - 1e-9]
        assert told[: len(settled)] == settled
        assert all(span.end_s <= segmenter.settled_s + 1e-9 for span in told)


def scores(*likely: float, nearest: float = 1.0) -> list[WindowScores]:
    return [WindowScores((share, 1 - share), nearest) for share in likely]


def test_by_hand() -> None:
    """Four windows of a, one of b: the cut is half a stride before the middle of the fifth."""
    spans = segment(scores(0.9, 0.8, 1, 0.7, 0.2), GRID, PLAIN, 2.4)
    assert [(span.label, span.start_s, span.end_s) for span in spans] == [
        (0, 0.0, pytest.approx(4 * 0.3 + 0.6 - 0.15)),
        (1, pytest.approx(1.65), 2.4),
    ]
    assert spans[0].score == pytest.approx(0.85)
    assert spans[0].peak_s == pytest.approx(2 * 0.3 + 0.6)


def test_hysteresis_bridges_a_dip() -> None:
    dips = scores(0.9, 0.9, 0.45, 0.9, 0.9)
    assert len(segment(dips, GRID, PLAIN, 2.4)) == 3
    assert [span.label for span in segment(dips, GRID, replace(PLAIN, leave=0.4), 2.4)] == [0]


def test_smoothing_takes_a_flicker_away() -> None:
    flickers = scores(0.9, 0.9, 0.1, 0.9, 0.9)
    assert len(segment(flickers, GRID, replace(PLAIN, smooth_s=0.6), 2.4)) == 1


def test_what_is_unknown_is_background() -> None:
    mixed = scores(0.9, 0.9) + scores(0.9, 0.9, nearest=-0.5) + scores(0.9, 0.9)
    spans = segment(mixed, GRID, replace(PLAIN, unknown_below=0), 3)
    assert [span.label for span in spans] == [0, 0]
    assert spans[0].end_s < spans[1].start_s


def test_a_short_stretch_makes_no_span() -> None:
    brief = scores(0.1, 0.9, 0.1, 0.1)
    assert [span.label for span in segment(brief, GRID, PLAIN, 2.1)] == [1, 0, 1]
    spans = segment(brief, GRID, replace(PLAIN, min_span_s=0.6), 2.1)
    assert [span.label for span in spans] == [1, 1]


def test_a_single_window_stands_for_the_whole_video() -> None:
    (span,) = segment(scores(0.9), GRID, replace(PLAIN, min_span_s=0.6), 1.4)
    assert (span.start_s, span.end_s) == (0, 1.4)


@given(st.integers(1, 16), st.floats(0.2, 120), st.floats(0.05, 120))
def test_windows_look_where_a_clip_of_their_time_would(
    frames: int, window_s: float, stride_s: float
) -> None:
    grid = WindowGrid.of(frames, window_s, stride_s)
    assert grid.window_s == pytest.approx(window_s)
    assert 0.6 <= grid.stride_s / stride_s <= 1.6 or grid.stride == 1
    for window in (0, 1, 7):
        start_s = grid.start_s(window)
        apart_s = window_s / frames
        wanted_s = [start_s + (k + 0.5) * apart_s for k in range(frames)]
        got_s = [grid.instant_s(number) for number in grid.instants_of(window)]
        np.testing.assert_allclose(got_s, wanted_s, rtol=1e-9)
        assert grid.count(start_s + window_s) == window + 1
