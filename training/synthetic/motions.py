"""Motions of one shape: what each does to its place, size, angle and opacity over a stage.

A motion maps progress p in [0, 1] through its stage to a change of pose. Changes of place, size
and angle stay for the following stages where motions are carried on; a path is made of three
motions, one after the other.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

MARGIN = 0.04  # share of the picture's side that paths keep free


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
