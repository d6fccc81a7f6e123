"""A clip as a value, and the rule that samples its frames.

Dimensions: T sampled frames, H = W pixels, C = 3 channels (RGB).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Clip:
    """T sampled frames of one video, and where they came from."""

    frames_THWC: np.ndarray  # uint8 RGB, H = W
    times_s: tuple[float, ...]  # presentation time of each sampled frame, from the clip's start
    duration_s: float
    codec: str  # "h264", ..., or "pictures"
    distinct: int  # how many different source frames the T samples are


def spread_indices(count: int, offsets: Sequence[float]) -> list[int]:
    """Cut `count` frames into equal spans and take one frame at each span's offset.

    Args:
        count: Frames of the clip, at least 1; fewer than spans repeats frames.
        offsets: One position in [0, 1) per span.

    Returns:
        Non-decreasing indices in [0, count), one per span.
    """
    if count < 1 or not offsets:
        raise ValueError(f"Sampling needs at least one frame and one span, got {count} frames.")
    spans = len(offsets)
    return [min(int((k + offset) * count / spans), count - 1) for k, offset in enumerate(offsets)]


def centre_indices(count: int, frames: int) -> list[int]:
    """Take the frame in the centre of each of `frames` equal spans of `count` frames."""
    return spread_indices(count, [0.5] * frames)


def jittered_indices(count: int, frames: int, rng: np.random.Generator) -> list[int]:
    """Take one random frame inside each of `frames` equal spans: augmentation in training."""
    return spread_indices(count, rng.random(frames).tolist())
