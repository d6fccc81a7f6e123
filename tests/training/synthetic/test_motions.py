"""Orders of three motions: which can be told apart, and that unordered frames tell nothing."""

import itertools

import numpy as np
import pytest

from training.synthetic.actions import Action, split_of
from training.synthetic.motions import (
    MOTIONS,
    Change,
    differing_frames,
    distinct_trios,
    follow,
    told_apart,
)
from training.synthetic.rendering import SEPARATE, render_clip


def test_moves_to_both_sides_are_left_out_as_a_mirror_exchanges_their_order() -> None:
    trios = distinct_trios(carried=False)
    assert not told_apart(("moves left", "grows", "moves right"), carried=False)
    assert not [trio for trio in trios if {"moves left", "moves right"} <= set(trio)]
    assert told_apart(("moves left", "grows", "rises"), carried=False)


@pytest.mark.parametrize("carried", [True, False])
def test_every_split_keeps_trios_enough(carried: bool) -> None:
    splits = [split_of(trio) for trio in distinct_trios(carried=carried)]
    assert min(splits.count(split) for split in ("train", "val", "test")) >= 20


def test_a_shift_a_turn_or_another_size_is_no_difference() -> None:
    rng = np.random.default_rng(0)
    one = rng.uniform(0, 1, (8, 6))
    shifted = one + np.array([0.3, -0.2, 0.5, 0.25, 0, 0])
    assert differing_frames(one, shifted) == 0
    shifted[2:5, 1] += 0.2
    assert differing_frames(one, shifted) == 3
    faded = one - np.array([0, 0, 0, 0, 0.5, 0])
    assert differing_frames(one, faded) == 8


def test_separate_motions_begin_from_the_same_pose() -> None:
    order = ("rises", "moves left", "spins")
    starts = [follow(order, at, carried=False) for at in (0, 1 / 3 + 1e-9, 2 / 3 + 1e-9)]
    for start in starts:
        assert (start.x, start.y, start.turns) == pytest.approx((0, 0, 0), abs=1e-6)
    carried = follow(order, 2 / 3 + 1e-9)
    assert (carried.x, carried.y) == pytest.approx((-0.42, -0.42), abs=1e-6)


def test_separate_orders_hold_the_same_frames_in_another_order() -> None:
    for trio in itertools.islice(itertools.combinations(MOTIONS, 3), 0, None, 9):
        frames = [
            sorted(
                (_rounded(follow(order, (k + 0.5) / 24, carried=False)) for k in range(24)),
                key=repr,
            )
            for order in itertools.permutations(trio)
        ]
        assert all(of_order == frames[0] for of_order in frames)


def test_unordered_frames_tell_the_order_hardly_better_than_chance() -> None:
    rng = np.random.default_rng(1)
    hits = [_hits_of_bags(trio, rng) for trio in distinct_trios(carried=False)[::40]]
    # chance is 1/6; standard error of the mean of these 2,880 answers about 0.01
    assert np.mean(hits) < 0.24


def test_frames_in_their_order_tell_it() -> None:
    rng = np.random.default_rng(1)
    hits = [_hits_of_bags(trio, rng, ordered=True) for trio in distinct_trios(carried=False)[::40]]
    assert np.mean(hits) > 0.5


def _rounded(change: Change) -> tuple[float | None, ...]:
    values = (change.x, change.y, change.growth, change.turns, change.opacity, change.visitor)
    return tuple(None if value is None else round(float(value), 4) + 0.0 for value in values)


def _hits_of_bags(
    trio: tuple[str, str, str], rng: np.random.Generator, *, ordered: bool = False
) -> float:
    """Return the share of clips whose nearest other clip has their order, of frame statistics."""
    made, wanted = [], []
    for place, order in enumerate(itertools.permutations(trio)):
        for _ in range(12):
            action = Action("red", "striped", "ball", order)
            frames = render_clip(action, rng, 8, 32, SEPARATE).astype(float)
            made.append(_statistics(frames, ordered=ordered))
            wanted.append(place)
    features = np.array(made)
    features = (features - features.mean(0)) / (features.std(0) + 1e-9)
    wanted_C = np.array(wanted)
    hits = 0
    for _ in range(120):
        pairs = [rng.choice(np.flatnonzero(wanted_C == n), 2, replace=False) for n in range(6)]
        shown, asked = (features[[pair[side] for pair in pairs]] for side in (0, 1))
        nearest = ((asked[:, None] - shown[None]) ** 2).sum(-1).argmin(1)
        hits += int((nearest == np.arange(6)).sum())
    return hits / 720


def _statistics(frames: np.ndarray, *, ordered: bool) -> np.ndarray:
    """Return mean, spread and extremes over frames of the mover's place, area and redness."""
    redness = np.maximum(frames[..., 0] - frames[..., 1:].max(axis=-1), 0) / 255
    area = redness.sum((1, 2)) + 1e-6
    at = np.linspace(0, 1, redness.shape[1])
    x, y = (redness.sum(1) * at).sum(1) / area, (redness.sum(2) * at).sum(1) / area
    per_frame = np.stack([x, y, np.log(area + 1), redness.max((1, 2))], axis=1)
    if ordered:
        return (per_frame - per_frame.mean(0)).ravel()
    return np.concatenate([per_frame.mean(0), per_frame.std(0), per_frame.min(0), per_frame.max(0)])
