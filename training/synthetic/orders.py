"""Which trios of motions have orders that a viewer of a few frames can tell apart.

The rule: take any two orders of the trio, or one order and the mirror image of another one, which
an augmentation may show. Whatever place, size and angle the two clips start from, 3 of 8 frames
differ by what can be seen.
"""

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from training.synthetic.motions import MOTIONS, Change, follow

FRAMES = 8
LEAST_FRAMES = 3  # that differ
# What can be seen: shares of the side, logarithm of size, turns, opacity, another shape or none.
VISIBLE = np.array([0.06, 0.06, 0.15, 0.08, 0.2, 0.5])
OF_START = 4  # the first of these are relative to a start that is not known


def told_apart(trio: Sequence[str], *, carried: bool) -> bool:
    """Tell whether a trio follows the rule.

    Args:
        trio: Three motions, in any order.
        carried: Whether a motion begins where the last one ended; else all begin alike.
    """
    orders = list(itertools.permutations(trio))
    seen = [_seen(order, carried=carried) for order in orders]
    mirrored = [_seen(order, carried=carried, sideways=-1.0) for order in orders]
    pairs = [(i, j) for i in range(len(orders)) for j in range(len(orders)) if i != j]
    return all(
        differing_frames(seen[i], other[j]) >= LEAST_FRAMES
        for i, j in pairs
        for other in (seen, mirrored)
    )


def differing_frames(one_TF: NDArray[np.float64], two_TF: NDArray[np.float64]) -> int:
    """Count the frames in which two clips differ visibly, from starts that make it hardest."""
    apart_TF = one_TF - two_TF
    apart_TF[:, :OF_START] -= np.median(apart_TF[:, :OF_START], axis=0)
    return int((np.abs(apart_TF) >= VISIBLE).any(axis=1).sum())


def _seen(order: Sequence[str], *, carried: bool, sideways: float = 1.0) -> NDArray[np.float64]:
    """Return what is seen [T, F] of F ways in which frames differ."""
    times = ((index + 0.5) / FRAMES for index in range(FRAMES))
    return np.array([_ways(follow(order, at, carried=carried), sideways) for at in times])


def _ways(change: Change, sideways: float) -> tuple[float, ...]:
    return (
        sideways * change.x,
        change.y,
        change.growth,
        sideways * change.turns,
        change.opacity,
        float(change.visitor is not None),
    )


def distinct_trios(*, carried: bool) -> list[tuple[str, str, str]]:
    """Return the unordered trios that follow the rule."""
    every = itertools.combinations(MOTIONS, 3)
    return [trio for trio in every if told_apart(trio, carried=carried)]
