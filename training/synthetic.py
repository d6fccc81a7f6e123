"""Synthetic actions: a textured shape goes through three motions; labels and captions included.

Everything is a function of its seed. Trios of motions are split into train, val and test whatever
their order and shape, so that labels of `val` and `test` are new to a model trained on `train`.

Dimensions: T frames, H = W = size pixels, C = 3 colours (RGB).
"""

import hashlib
import itertools
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.listings import Split
from training.motions import MARGIN, MOTIONS, Change, follow
from training.shapes import (
    COLOURS,
    SHAPES,
    TEXTURES,
    Array,
    Look,
    Pose,
    draw_background,
    draw_look,
    paint,
)

Trio = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Action:
    """What moves, and how: a kind of shape and three motions in order."""

    colour: str
    texture: str
    shape: str
    motions: Trio

    @property
    def mover(self) -> str:
        """What moves, in words."""
        return f"{self.colour} {self.texture} {self.shape}"

    @property
    def label(self) -> str:
        """The action as a label."""
        first, second, third = self.motions
        return f"{self.mover} {first} then {second} then {third}"

    @property
    def stages(self) -> tuple[str, str, str]:
        """The three stages as sentences."""
        one, two, three = (f"The {self.mover} {name}." for name in self.motions)
        return one, two, three

    @property
    def split(self) -> Split:
        """Which split the action's trio of motions belongs to."""
        return split_of(self.motions)


def split_of(motions: Trio) -> Split:
    """Return the split of a trio: about 70, 15 and 15 % of all, whatever the order."""
    digest = hashlib.sha256(" ".join(sorted(motions)).encode()).digest()[0]
    return "train" if digest < 179 else "val" if digest < 218 else "test"


def trios(split: Split) -> list[Trio]:
    """Return the unordered trios of a split."""
    every = itertools.combinations(MOTIONS, 3)
    return [trio for trio in every if split_of(trio) == split]


def draw_action(rng: np.random.Generator, split: Split) -> Action:
    """Draw any action of a split."""
    members = trios(split)
    first, second, third = rng.permutation(members[rng.integers(len(members))])
    colour, texture, shape = (str(rng.choice(list(kind))) for kind in (COLOURS, TEXTURES, SHAPES))
    return Action(colour, texture, shape, (str(first), str(second), str(third)))


def demo_actions(count: int, seed: int, split: Split = "test") -> list[Action]:
    """Return actions that all differ in colour, shape and motions.

    Args:
        count: How many; at most the number of colours.
        seed: The choice.
        split: Where the trios come from.
    """
    if not 1 <= count <= len(COLOURS):
        raise ValueError(f"count is {count}; demo actions number 1 to {len(COLOURS)}.")
    rng = np.random.default_rng(seed)
    colours = rng.permutation(list(COLOURS))[:count]
    shapes = rng.permutation(list(SHAPES))[:count]
    textures = np.concatenate([rng.permutation(list(TEXTURES)) for _ in range(2)])[:count]
    members = trios(split)
    chosen = rng.permutation(len(members))[:count]
    return [
        Action(str(colour), str(texture), str(shape), _shuffled(members[index], rng))
        for colour, texture, shape, index in zip(colours, textures, shapes, chosen, strict=True)
    ]


def order_actions(count: int, seed: int, split: Split = "test") -> list[Action]:
    """Return actions of one shape that differ only in the order of the same three motions.

    Args:
        count: How many; at most the six orders.
        seed: The choice.
        split: Where the trio comes from.
    """
    if not 1 <= count <= 6:
        raise ValueError(f"count is {count}; three motions have 1 to 6 orders.")
    rng = np.random.default_rng(seed)
    drawn = draw_action(rng, split)
    orders = list(itertools.permutations(drawn.motions))
    return [replace(drawn, motions=orders[i]) for i in rng.permutation(6)[:count]]


def _shuffled(trio: Trio, rng: np.random.Generator) -> Trio:
    first, second, third = rng.permutation(trio)
    return str(first), str(second), str(third)


def render_clip(
    action: Action, rng: np.random.Generator, frames: int, size: int
) -> NDArray[np.uint8]:
    """Render a clip [T, H, W, C], each frame from the centre of one of T equal spans.

    Args:
        action: What moves, and how.
        rng: Draws colours, background, place, size, angle, and the camera's drift.
        frames: T.
        size: Pixels.
    """
    look = draw_look(action.colour, action.texture, action.shape, rng)
    wide = size + size // 8
    background = draw_background(wide, rng)
    changes = [follow(action.motions, (index + 0.5) / frames) for index in range(frames)]
    poses = _place(changes, action.motions, rng)
    drift = rng.uniform(0, wide - size, (2, 2))
    clip = np.empty((frames, size, size, 3), np.uint8)
    for index, (change, pose) in enumerate(zip(changes, poses, strict=True)):
        top, left = (drift[0] + (drift[1] - drift[0]) * index / frames).astype(int)
        canvas = background[top : top + size, left : left + size].copy()
        _paint_moment(canvas, look, pose, change)
        clip[index] = np.round(canvas * 255)
    return clip


def _paint_moment(canvas: Array, look: Look, pose: Pose, change: Change) -> None:
    paint(canvas, look, pose)
    if change.visitor is not None:
        x = pose.x + change.visitor * pose.radius
        paint(canvas, look, Pose(x, pose.y, pose.radius, -pose.angle))


def _place(changes: list[Change], motions: Trio, rng: np.random.Generator) -> list[Pose]:
    """Draw a start so that the whole path stays inside the picture, smaller where it must."""
    dense = [follow(motions, at) for at in np.linspace(0, 1, 61)]
    room = max(change.growth for change in dense)
    radius = rng.uniform(0.16, 0.21) * np.exp(-max(room - 0.4, 0) * 0.7)
    largest = radius * np.exp(room) + MARGIN
    starts = []
    for axis in ("x", "y"):
        path = np.array([getattr(change, axis) for change in dense])
        low, high = largest - path.min(), 1 - largest - path.max()
        if axis == "x" and "collides" in motions:
            high -= 2 * largest  # so that the visitor is seen when they meet
        starts.append(rng.uniform(low, high) if low < high else (low + high) / 2)
    angle = rng.uniform(-0.3, 0.3)
    return [
        Pose(
            x=starts[0] + change.x,
            y=starts[1] + change.y,
            radius=float(radius * np.exp(change.growth)),
            angle=float(angle + 2 * np.pi * change.turns),
            opacity=change.opacity,
        )
        for change in changes
    ]


def write_clip(
    path: Path,
    action: Action,
    seed: int,
    *,
    fps: int = 12,
    seconds: float = 3.0,
    size: int = 240,
) -> None:
    """Write a clip as an H.264 mp4 file.

    Args:
        path: Where; the folder exists.
        action: What moves, and how.
        seed: Of everything that is drawn.
        fps: Frames a second.
        seconds: Length.
        size: Pixels, even.
    """
    import av  # lazily: rendering needs no codec

    clip = render_clip(action, np.random.default_rng(seed), round(fps * seconds), size)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps))
        stream.width, stream.height, stream.pix_fmt = size, size, "yuv420p"
        stream.options = {"crf": "20", "preset": "veryfast", "threads": "1"}
        for picture in clip:
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
