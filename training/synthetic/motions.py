"""Motions of one shape, and the trios of them whose orders a viewer of a few frames can tell apart.

A motion maps progress p in [0, 1] through its stage to a change of place, size, angle and opacity.
Changes of place, size and angle stay for the following stages where motions are carried on; a path
is made of three motions, one after the other.

The rule of a distinct trio: take any two of its orders, or one order and the mirror image of
another one, which an augmentation may show. Whatever place, size and angle the two clips start
from, 3 of 8 frames differ visibly.

Dimensions: T = FRAMES frames, F ways in which frames differ.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Trio = tuple[str, str, str]  # names of motions

MARGIN = 0.04  # share of the picture's side that paths keep free

FRAMES = 8  # that a viewer sees
LEAST_FRAMES = 3  # that differ between distinct orders
# What can be seen: shares of the side, logarithm of size, turns, opacity, another shape or none.
VISIBLE = np.array([0.06, 0.06, 0.15, 0.08, 0.2, 0.5])
OF_START = 4  # the first of these are relative to a start that is not known


@dataclass(frozen=True, slots=True)
class Change:
    """What a motion adds to a pose."""

    x: float = 0.0  # shares of the picture's side
    y: float = 0.0
    growth: float = 0.0  # natural logarithm of the change of radius
    turns: float = 0.0
    opacity: float = 1.0  # of this moment alone
    visitor: float | None = None  # distance of a second shape, in radii, while two collide


Motion = Callable[[float], Change]


def _collide(p: float) -> Change:
    """A second shape comes from the right, hits, and both bounce apart."""
    away = 5 * abs(p - 0.5) + 2.0
    return Change(x=-0.12 * max(p - 0.5, 0.0) * 2, visitor=away)


MOTIONS: dict[str, Motion] = {
    "moves left": lambda p: Change(x=-0.42 * p),
    "moves right": lambda p: Change(x=0.42 * p),
    "rises": lambda p: Change(y=-0.42 * p),
    "falls": lambda p: Change(y=0.42 * p),
    "grows": lambda p: Change(growth=0.8 * p),
    "shrinks": lambda p: Change(growth=-0.8 * p),
    "spins": lambda p: Change(turns=0.75 * p),
    "bounces": lambda p: Change(y=-0.25 * abs(np.sin(2 * np.pi * p))),
    "circles": lambda p: Change(
        x=0.17 * (np.cos(2 * np.pi * p) - 1), y=0.17 * np.sin(2 * np.pi * p)
    ),
    "fades": lambda p: Change(opacity=0.55 + 0.45 * float(np.cos(2 * np.pi * p))),
    "collides": _collide,
}


def follow(motions: Sequence[str], at: float, *, carried: bool = True) -> Change:
    """Return the change since the start of a clip whose stages are equally long.

    Args:
        motions: Names of the stages' motions, in order.
        at: Share of the clip, in [0, 1].
        carried: Whether a stage begins where the last one ended; else as the clip began.
    """
    position = min(at * len(motions), len(motions) - 1e-6)
    stage = int(position)
    ended = [MOTIONS[name](1.0) for name in motions[:stage]] if carried else []
    now = MOTIONS[motions[stage]](position - stage)
    parts = [*ended, now]
    return Change(
        x=sum(part.x for part in parts),
        y=sum(part.y for part in parts),
        growth=sum(part.growth for part in parts),
        turns=sum(part.turns for part in parts),
        opacity=now.opacity,
        visitor=now.visitor,
    )


def told_apart(trio: Sequence[str], *, carried: bool) -> bool:
    """Tell whether a trio is distinct.

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


def distinct_trios(*, carried: bool) -> list[Trio]:
    """Return the distinct trios, each in one order."""
    every = itertools.combinations(MOTIONS, 3)
    return [trio for trio in every if told_apart(trio, carried=carried)]
