"""Clips of synthetic actions: rendered with numpy, written as H.264.

A clip is a function of its action, its course and the generator that draws everything else.

Dimensions: T frames, H = W = size pixels, C = 3 colours (RGB).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.synthetic.actions import Action
from training.synthetic.motions import MARGIN, Change, Trio, follow
from training.synthetic.shapes import Array, Look, Pose, draw_background, draw_look, paint


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """How the three stages of a clip follow one another."""

    carried: bool = True  # a motion begins where the last one ended; else as the clip began
    uneven: float = 0.0  # a stage's length is drawn from 1 +- this, in shares of a third


FLOWING = Course()
# Even stages of 3, 2 and 3 of 8 frames would tell which motion is the middle one.
SEPARATE = Course(carried=False, uneven=0.3)


def render_clip(
    action: Action, rng: np.random.Generator, frames: int, size: int, course: Course = FLOWING
) -> NDArray[np.uint8]:
    """Render a clip [T, H, W, C], each frame from the centre of one of T equal spans.

    Args:
        action: What moves, and how.
        rng: Draws colours, background, place, size, angle, the camera's drift, and the lengths of
            stages where they are uneven.
        frames: T.
        size: Pixels.
        course: How the stages follow one another.
    """
    look = draw_look(action.colour, action.texture, action.shape, rng)
    wide = size + size // 8
    background = draw_background(wide, rng)
    times = _times(frames, course.uneven, rng)
    changes = [follow(action.motions, at, carried=course.carried) for at in times]
    poses = _place(changes, action.motions, rng, carried=course.carried)
    drift = rng.uniform(0, wide - size, (2, 2))
    clip = np.empty((frames, size, size, 3), np.uint8)
    for index, (change, pose) in enumerate(zip(changes, poses, strict=True)):
        top, left = (drift[0] + (drift[1] - drift[0]) * index / frames).astype(int)
        canvas = background[top : top + size, left : left + size].copy()
        _paint_moment(canvas, look, pose, change)
        clip[index] = np.round(canvas * 255)
    return clip


def _times(frames: int, uneven: float, rng: np.random.Generator) -> list[float]:
    """Return where frames fall in a course of three equal stages, themselves drawn uneven."""
    even = [(index + 0.5) / frames for index in range(frames)]
    if not uneven:
        return even
    lengths = rng.uniform(1 - uneven, 1 + uneven, 3)
    ends = np.cumsum(lengths) / lengths.sum()
    return np.interp(even, [0, *ends], [0, 1 / 3, 2 / 3, 1]).tolist()


def _paint_moment(canvas: Array, look: Look, pose: Pose, change: Change) -> None:
    paint(canvas, look, pose)
    if change.visitor is not None:
        x = pose.x + change.visitor * pose.radius
        paint(canvas, look, Pose(x, pose.y, pose.radius, -pose.angle))


def _place(
    changes: list[Change], motions: Trio, rng: np.random.Generator, *, carried: bool
) -> list[Pose]:
    """Draw a start so that the whole path stays inside the picture, smaller where it must."""
    dense = [follow(motions, at, carried=carried) for at in np.linspace(0, 1, 61)]
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
    seed: int | Sequence[int],
    *,
    fps: int = 12,
    seconds: float = 3.0,
    size: int = 240,
    course: Course = FLOWING,
) -> None:
    """Write a clip as an H.264 mp4 file.

    Args:
        path: Of the file; its folder exists.
        action: What moves, and how.
        seed: Of everything that is drawn.
        fps: Frames a second.
        seconds: Length.
        size: Pixels, even.
        course: How the stages follow one another.
    """
    import av  # lazily: rendering needs no codec

    frames = round(fps * seconds)
    clip = render_clip(action, np.random.default_rng(seed), frames, size, course)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps))
        stream.width, stream.height, stream.pix_fmt = size, size, "yuv420p"
        # x264 does not always choose the same B frames again; without them bytes repeat.
        stream.options = {"crf": "20", "preset": "veryfast", "threads": "1", "bf": "0"}
        for picture in clip:
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
