"""A clip as a value, and the rule that samples its frames: by time.

A clip (or the part of it that is asked for) is cut into T equal spans of time. In the centre of
each, or at a random instant inside it in training, stands the picture that a player shows then:
the last frame whose time is not later. So a clip gives the same pictures at any frame rate.

Dimensions: T sampled frames, H = W pixels, C = 3 channels (RGB).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Generators are named in quotes: a decoder, which draws nothing, need not import numpy.random.
SLACK_S = 1e-6  # an instant that falls on a frame's time, but for rounding, shows that frame


@dataclass(frozen=True, slots=True)
class Clip:
    """T sampled frames of one video, and where they came from."""

    frames_THWC: np.ndarray  # uint8 RGB, H = W
    times_s: tuple[float, ...]  # presentation time of each sampled frame, from the clip's start
    duration_s: float
    codec: str  # "h264", ..., or "pictures"
    distinct: int  # how many different source frames the T samples are
    warnings: tuple[str, ...] = ()  # sentences for people: what was wrong with a clip that is used


@dataclass(frozen=True, slots=True)
class Timeline:
    """When each frame of a clip is shown, from its start; in the order of the frames."""

    times_s: tuple[float, ...]
    duration_s: float  # until the last frame ends

    def shown_at(self, instants_s: Sequence[float]) -> list[int]:
        """Tell which frame a player shows at each instant: the last one that has begun.

        Before the first frame begins, it is the first. Frames may be out of order.
        """
        times_s = np.asarray(self.times_s)
        order = np.argsort(times_s, kind="stable")
        after = np.searchsorted(times_s[order], np.asarray(instants_s) + SLACK_S, side="right")
        return [int(k) for k in order[np.maximum(after - 1, 0)]]


def timeline(times_s: Sequence[float], last_s: float, unit_s: float) -> Timeline:
    """Make the timeline of frames whose times a container has rounded.

    Times of a constant rate are given back what the rounding took, so that an instant between two
    frames does not depend on the container. A last frame much shorter than the others is given
    their length: some containers do not say it, and FFmpeg then makes one up.

    Args:
        times_s: When each frame is shown, from the first one's time.
        last_s: How long the last one is shown.
        unit_s: What times are multiples of.
    """
    count, ordered_s = len(times_s), sorted(times_s)
    usual_s = float(np.median(np.diff(ordered_s))) if count > 1 else last_s
    ends_s = ordered_s[-1] + (last_s if last_s > usual_s / 2 else usual_s)
    step_s = ordered_s[-1] / (count - 1) if count > 1 else ends_s
    even_s = step_s * np.arange(count + 1)
    rounded_s = np.array([*ordered_s, ends_s])
    if np.abs(even_s - rounded_s).max() > unit_s + SLACK_S:
        return Timeline(tuple(times_s), ends_s)
    rank = np.argsort(np.argsort(times_s, kind="stable"), kind="stable")
    return Timeline(tuple(even_s[rank].tolist()), float(even_s[-1]))


def spread_instants(start_s: float, end_s: float, offsets: Sequence[float]) -> list[float]:
    """Cut the time from `start_s` to `end_s` into equal spans and take each one's instant.

    Args:
        start_s: Where the first span begins.
        end_s: Where the last one ends.
        offsets: One position in [0, 1) per span.
    """
    span_s = (end_s - start_s) / len(offsets)
    return [start_s + (k + offset) * span_s for k, offset in enumerate(offsets)]


def spread_indices(count: int, offsets: Sequence[float]) -> list[int]:
    """Apply the same rule to `count` pictures that are each shown equally long.

    Args:
        count: Pictures of the clip, at least 1; fewer than spans repeats pictures.
        offsets: One position in [0, 1) per span.

    Returns:
        Non-decreasing indices in [0, count), one per span.
    """
    if count < 1 or not offsets:
        raise ValueError(f"Sampling needs at least one frame and one span, got {count} frames.")
    spans = len(offsets)
    return [min(int((k + offset) * count / spans), count - 1) for k, offset in enumerate(offsets)]


def centre_indices(count: int, frames: int) -> list[int]:
    """Take the picture in the centre of each of `frames` equal spans of `count` pictures."""
    return spread_indices(count, [0.5] * frames)


def jittered_indices(count: int, frames: int, rng: "np.random.Generator") -> list[int]:
    """Take one random picture inside each of `frames` equal spans: augmentation in training."""
    return spread_indices(count, rng.random(frames).tolist())
