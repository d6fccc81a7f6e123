"""The sampling rule: the centre of T equal spans, or one random frame inside each."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.media.sampling import centre_indices, jittered_indices

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
