"""The sampling rule: the centre of T equal spans, or one random frame inside each."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.media.sampling import (
    Timeline,
    centre_indices,
    jittered_indices,
    spread_instants,
    timeline,
)

COUNTS = st.integers(1, 5000)
FRAMES = st.integers(1, 64)


@pytest.mark.parametrize(
    ("count", "frames", "expected"),
    [
        (8, 8, [0, 1, 2, 3, 4, 5, 6, 7]),
        (16, 8, [1, 3, 5, 7, 9, 11, 13, 15]),
        (30, 8, [1, 5, 9, 13, 16, 20, 24, 28]),
        (3, 8, [0, 0, 0, 1, 1, 2, 2, 2]),
        (1, 4, [0, 0, 0, 0]),
        (100, 1, [50]),
    ],
)
def test_centres_by_hand(count: int, frames: int, expected: list[int]) -> None:
    assert centre_indices(count, frames) == expected


@given(COUNTS, FRAMES)
def test_centre_is_the_exact_rule_and_symmetric_in_time(count: int, frames: int) -> None:
    indices = centre_indices(count, frames)
    assert indices == [(2 * k + 1) * count // (2 * frames) for k in range(frames)]
    for k, index in enumerate(indices):
        assert k * count <= index * frames + frames - 1
        assert index * frames < (k + 1) * count


@given(COUNTS, FRAMES)
def test_few_frames_repeat_and_many_do_not(count: int, frames: int) -> None:
    indices = centre_indices(count, frames)
    assert indices == sorted(indices)
    assert indices[0] >= 0
    assert indices[-1] < count
    assert len(indices) == frames
    assert len(set(indices)) == min(count, frames)


@given(COUNTS, FRAMES, st.integers(0, 2**32))
def test_jitter_stays_inside_its_span(count: int, frames: int, seed: int) -> None:
    indices = jittered_indices(count, frames, np.random.default_rng(seed))
    for k, index in enumerate(indices):
        assert 0 <= index < count
        assert (k * count) // frames <= index <= ((k + 1) * count - 1) // frames


def test_jitter_reaches_every_frame() -> None:
    rng = np.random.default_rng(0)
    seen = {index for _ in range(200) for index in jittered_indices(20, 4, rng)}
    assert seen == set(range(20))


def test_sampling_nothing_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        centre_indices(0, 8)


def at_centres(clip: Timeline, frames: int = 8) -> list[int]:
    return clip.shown_at(spread_instants(0, clip.duration_s, [0.5] * frames))


@given(COUNTS, FRAMES, st.sampled_from([10, 15, 24, 25, 30, 50, 60, 120, 24000 / 1001]))
def test_at_a_constant_rate_time_and_index_choose_the_same(
    count: int, frames: int, rate: float
) -> None:
    clip = timeline([k / rate for k in range(count)], 1 / rate, 1 / 90000)
    assert at_centres(clip, frames) == centre_indices(count, frames)


@given(st.integers(1, 2000), FRAMES, st.sampled_from([24, 25, 30, 60, 30000 / 1001]))
def test_times_that_the_container_rounds_choose_the_same(
    count: int, frames: int, rate: float
) -> None:
    """Matroska counts milliseconds: of 60 frames a second each lasts 16 or 17."""
    times_s = [round(k * 1000 / rate) / 1000 for k in range(count)]
    for last_s in (int(1000 / rate) / 1000, 1 / rate):
        assert at_centres(timeline(times_s, last_s, 1e-3), frames) == centre_indices(count, frames)


def test_a_variable_rate_is_sampled_by_time() -> None:
    """One second of 60 frames, then four of 5: the first second gets its fifth of the samples."""
    fast, slow = [k / 60 for k in range(60)], [1 + k / 5 for k in range(20)]
    clip = timeline([*fast, *slow], 0.2, 1 / 90000)
    assert clip.duration_s == 5
    instants_s = [(k + 0.5) * 5 / 8 for k in range(8)]
    expected = [int(t * 60) if t < 1 else 60 + int((t - 1) * 5) for t in instants_s]
    assert at_centres(clip) == expected
    assert sum(k < 60 for k in at_centres(clip)) == 2


def test_the_picture_of_an_instant_is_the_last_one_that_has_begun() -> None:
    clip = timeline([0.0, 0.5, 0.6], 0.4, 1e-4)
    assert clip.shown_at([-1, 0, 0.49, 0.5, 0.59, 0.6, 0.99, 5]) == [0, 0, 0, 1, 1, 2, 2, 2]


def test_frames_out_of_order_are_shown_by_their_times() -> None:
    clip = timeline([0.0, 0.2, 0.1, 0.3], 0.1, 1e-4)
    assert clip.duration_s == pytest.approx(0.4)
    assert clip.shown_at([0.05, 0.15, 0.25, 0.35]) == [0, 2, 1, 3]


def test_a_last_frame_of_no_length_lasts_as_long_as_the_others() -> None:
    clip = timeline([k / 30 for k in range(30)], 1e-3, 1e-3)
    assert clip.duration_s == pytest.approx(1)
    assert at_centres(clip) == centre_indices(30, 8)
