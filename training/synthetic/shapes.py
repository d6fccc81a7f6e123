"""Draw textured shapes on varied backgrounds with numpy, a millisecond or so a frame.

Coordinates are shares of the picture's side: x to the right, y down, both from 0 to 1. A shape is
a signed distance in its own frame, where it has about unit radius.

Dimensions: H = W pixels, C = 3 colours (RGB in [0, 1]).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
Field = Callable[[Array, Array], Array]  # local u, v -> signed distance, negative inside


def _polygon(corners: int) -> Field:
    def distance(u: Array, v: Array) -> Array:
        sector = 2 * np.pi / corners
        angle = np.mod(np.arctan2(u, -v) + sector / 2, sector) - sector / 2
        return np.hypot(u, v) * np.cos(angle) - np.cos(sector / 2)

    return distance


def _star(u: Array, v: Array) -> Array:
    sector = np.mod(np.arctan2(u, -v) * 5 / (2 * np.pi) + 0.5, 1) - 0.5
    return np.hypot(u, v) - (1.05 - 1.25 * np.abs(sector))


def _cross(u: Array, v: Array) -> Array:
    bars = np.minimum(np.maximum(np.abs(u) - 0.3, np.abs(v) - 1), 9)
    return np.minimum(bars, np.maximum(np.abs(v) - 0.3, np.abs(u) - 1))


def _heart(u: Array, v: Array) -> Array:
    return np.hypot(u * 1.05, -v * 1.1 - 0.75 * np.sqrt(np.abs(u)) + 0.25) - 0.95


def _arrow(u: Array, v: Array) -> Array:
    shaft = np.maximum(np.abs(u) - 0.25, np.abs(v - 0.4) - 0.6)
    head = np.maximum(v + 0.05, np.abs(u) * 1.0 - (v + 1.0) * 0.85)
    return np.minimum(shaft, head)


SHAPES: dict[str, Field] = {
    "ball": lambda u, v: np.hypot(u, v) - 1,
    "square": lambda u, v: np.maximum(np.abs(u), np.abs(v)) - 0.85,
    "triangle": _polygon(3),
    "star": _star,
    "cross": _cross,
    "ring": lambda u, v: np.abs(np.hypot(u, v) - 0.75) - 0.25,
    "heart": _heart,
    "moon": lambda u, v: np.maximum(np.hypot(u, v) - 1, 0.85 - np.hypot(u - 0.55, v)),
    "bar": lambda u, v: np.maximum(np.abs(u) - 0.3, np.abs(v) - 1.1),
    "arrow": _arrow,
}

TEXTURES: dict[str, Field] = {  # positive where the second colour shows
    "split": lambda u, v: u + 0 * v,
    "striped": lambda u, v: np.sin(9 * u + 0 * v),
    "dotted": lambda u, v: np.sin(8 * u) * np.sin(8 * v) - 0.35,
    "checkered": lambda u, v: np.sin(6.5 * u) * np.sin(6.5 * v),
    "wavy": lambda u, v: np.sin(8 * (u + 0.25 * np.sin(5 * v))),
}


COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.9, 0.1, 0.1),
    "orange": (1.0, 0.55, 0.05),
    "yellow": (0.95, 0.9, 0.1),
    "green": (0.1, 0.7, 0.15),
    "blue": (0.1, 0.25, 0.9),
    "purple": (0.6, 0.15, 0.75),
    "pink": (1.0, 0.5, 0.75),
    "brown": (0.45, 0.25, 0.1),
}


@dataclass(frozen=True, slots=True)
class Pose:
    """Where one shape is in one frame."""

    x: float
    y: float
    radius: float  # share of the picture's side
    angle: float  # radians, clockwise
    opacity: float = 1.0


@dataclass(frozen=True, slots=True)
class Look:
    """How one shape looks all through a clip."""

    shape: str
    texture: str
    colours: tuple[Array, Array]


def draw_look(colour: str, texture: str, shape: str, rng: np.random.Generator) -> Look:
    """Draw shades: the named colour, and a pale or dark mark on it."""
    first = np.clip(np.array(COLOURS[colour]) + rng.uniform(-0.08, 0.08, 3), 0, 1)
    mark = rng.choice([0.05, 0.95])
    second = np.clip(mark + 0.12 * (first - mark) + rng.uniform(-0.04, 0.04, 3), 0, 1)
    return Look(shape, texture, (first.astype(np.float32), second.astype(np.float32)))


def paint(canvas_HWC: Array, look: Look, pose: Pose) -> None:
    """Paint a shape over the canvas, in place; only its neighbourhood is computed."""
    side = canvas_HWC.shape[0]
    reach = 1.5 * pose.radius
    left, top = (max(int((at - reach) * side), 0) for at in (pose.x, pose.y))
    right, bottom = (min(int((at + reach) * side) + 2, side) for at in (pose.x, pose.y))
    if left >= right or top >= bottom:
        return
    x = ((np.arange(left, right, dtype=np.float32) + 0.5) / side - pose.x) / pose.radius
    y = ((np.arange(top, bottom, dtype=np.float32) + 0.5) / side - pose.y)[:, None] / pose.radius
    cos, sin = np.float32(np.cos(pose.angle)), np.float32(np.sin(pose.angle))
    u, v = x * cos + y * sin, y * cos - x * sin
    soft = np.float32(pose.radius * side)  # pixels of one local unit
    cover = np.clip(0.5 - SHAPES[look.shape](u, v) * soft, 0, 1) * np.float32(pose.opacity)
    mark = np.clip(0.5 + TEXTURES[look.texture](u, v) * soft / 8, 0, 1)[..., None]
    colour = look.colours[0] * (1 - mark) + look.colours[1] * mark
    window = canvas_HWC[top:bottom, left:right]
    window += cover[..., None] * (colour - window)


def draw_background(side: int, rng: np.random.Generator) -> Array:
    """Draw a background [H, W, C]: a gradient, soft blobs, waves or bars, with grain."""
    base, other = _dull_colour(rng), _dull_colour(rng)
    along = np.linspace(0, 1, side, dtype=np.float32)
    kind, turn = rng.integers(4), rng.uniform(0, 2 * np.pi)
    slope = along * np.float32(np.cos(turn)) + along[:, None] * np.float32(np.sin(turn))
    share: Array
    if kind == 0:
        share = slope / 2 + 0.5
    elif kind == 1:
        share = _enlarge(rng.uniform(0, 1, (6, 6)).astype(np.float32), side)
    elif kind == 2:
        share = np.sin(slope * np.float32(rng.uniform(6, 30))) / 2 + 0.5
    else:
        share = (np.mod(slope * np.float32(rng.uniform(2, 7)), 1) > 0.5).astype(np.float32)
    colours = base + (other - base) * np.float32(rng.uniform(0.1, 0.6)) * share[..., None]
    grain = rng.standard_normal((side // 2 + 1, side // 2 + 1, 1), dtype=np.float32)
    grain = grain.repeat(2, axis=0).repeat(2, axis=1)[:side, :side]
    return np.clip(colours + np.float32(rng.uniform(0, 0.04)) * grain, 0, 1)


def _dull_colour(rng: np.random.Generator) -> Array:
    return (rng.uniform(0.15, 0.85) + rng.uniform(-0.08, 0.08, 3)).astype(np.float32)


def _enlarge(coarse: Array, side: int) -> Array:
    at = np.linspace(0, coarse.shape[0] - 1, side)
    known = np.arange(coarse.shape[0])
    rows = np.stack([np.interp(at, known, row) for row in coarse])
    return np.stack([np.interp(at, known, column) for column in rows.T], axis=1).astype(np.float32)
