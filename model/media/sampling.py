"""A clip as a value, what is accepted as one, and the rule that samples its frames.

Dimensions: T sampled frames, H = W pixels, C = 3 channels (RGB).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaLimits:
    """What one clip may be; the defaults are the service's."""

    max_bytes: int = 25 * 2**20  # of the encoded clip, or of all its pictures together
    min_duration_s: float = 0.2
    max_duration_s: float = 60.0
    max_pixels: int = 2_100_000  # of one picture: a little over 1920 x 1080
    max_frames: int = 3600  # walked from the first to the last, not sampled
    max_streams: int = 8  # video, audio, subtitles and data; phones write five
    containers: tuple[str, ...] = ("mp4", "webm", "avi")  # mp4 covers mov, webm covers mkv
    codecs: tuple[str, ...] = ("h264", "hevc", "vp8", "vp9", "av1", "mpeg4")
    min_pictures: int = 8
    max_pictures: int = 32


UNLIMITED = MediaLimits(
    max_bytes=2**40,
    min_duration_s=0.0,
    max_duration_s=1e6,
    max_pixels=2**27,
    max_frames=2**27,
    max_streams=1000,
    min_pictures=1,
    max_pictures=2**16,
)  # for training on local files that are trusted; containers and codecs stay the same


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
