"""Bytes or a path -> T sampled RGB frames: the one way in for service, training and evaluation.

`read_clip` reads the headers, chooses the frames by their times, and has them decoded. No torch is
imported.

Dimensions: T sampled frames, H = W = size, C = 3 channels (RGB).
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from model.errors import ClipSpanError, ClipTooLargeError, ClipTooShortError
from model.media.container import MediaLimits, check_duration
from model.media.decoding import Decoded, decode_video
from model.media.display import Framing
from model.media.headers import Header, read_header
from model.media.sampling import SLACK_S, Clip, Timeline, spread_instants

ROUNDING_S = 0.05  # players round a clip's length; `end_s` may exceed it by this much


Decoder = Callable[[bytes, Header, Sequence[int], Framing, MediaLimits], Decoded]


def read_clip(
    source: bytes | Path,
    *,
    frames: int,
    size: int,
    limits: MediaLimits,
    start_s: float | None = None,
    end_s: float | None = None,
    jitter: "np.random.Generator | None" = None,
    decode: Decoder = decode_video,
    squash: int | None = None,
) -> Clip:
    """Read a video and sample its frames, each from one of equal spans of time.

    Args:
        source: The encoded clip, or a trusted file that holds it.
        frames: T, how many frames to sample; a shorter clip repeats frames.
        size: Height and width of the result in pixels.
        limits: What is accepted.
        start_s: Sample from here on, counted from the first frame; the first frame if None.
        end_s: Sample until here; to the end of the last frame if None.
        jitter: Draws one random instant inside each span; the centre of each span if None.
        decode: What decodes the chosen frames.
        squash: Side that whole frames are squashed to before the crop; None keeps their shape.

    Raises:
        ClipError: One of its children, when the clip cannot be used.
    """
    data, span = _bytes(source, limits), _Span(start_s, end_s)
    header = read_header(data, limits)
    wanted = span.choose(header.timeline, _offsets(frames, jitter), limits)
    decoded = decode(data, header, wanted, Framing(size, squash), limits)
    return _clip(header, decoded, [decoded.shown[place] for place in wanted])


def _clip(header: Header, decoded: Decoded, shown: Sequence[int]) -> Clip:
    return Clip(
        frames_THWC=np.stack([decoded.squares[place] for place in shown]),
        times_s=tuple(header.timeline.times_s[place] for place in shown),
        duration_s=header.timeline.duration_s,
        codec=header.codec,
        distinct=len(set(shown)),
        warnings=decoded.warnings,
    )


def check_clip(
    data: bytes,
    *,
    frames: int,
    limits: MediaLimits,
    start_s: float | None = None,
    end_s: float | None = None,
) -> float:
    """Refuse a video that its headers give away, without decoding: as `read_clip` would.

    Returns:
        Seconds of it, or of its span.

    Raises:
        ClipError: One of its children, when the clip cannot be used.
    """
    span = _Span(start_s, end_s)
    header = read_header(_bytes(data, limits), limits)
    span.choose(header.timeline, [0.5] * frames, limits)
    return float(min(span.end_s, header.timeline.duration_s) - span.start_s)


class _Span:
    """The part of a clip between `start_s` and `end_s`."""

    def __init__(self, start_s: float | None, end_s: float | None) -> None:
        self.start_s = 0.0 if start_s is None else start_s
        self.end_s = math.inf if end_s is None else end_s
        if not 0 <= self.start_s < self.end_s or math.isinf(self.start_s):
            begin, end = f"{self.start_s:g} s", "the end" if end_s is None else f"{end_s:g} s"
            raise ClipSpanError(
                f"The span from {begin} to {end} is empty or starts before the clip;"
                " give 0 <= start_s < end_s."
            )

    def choose(self, clip: Timeline, offsets: Sequence[float], limits: MediaLimits) -> list[int]:
        """Choose one frame at each offset of equal parts.

        Raises:
            ClipError: The clip or span is too short or too long, or the span not in the clip.
        """
        lasts_s = clip.duration_s
        check_duration(lasts_s, limits)
        late = not math.isinf(self.end_s) and self.end_s > lasts_s + ROUNDING_S
        if late or 0 < self.start_s >= lasts_s:
            end = f"{self.end_s:g} s" if math.isfinite(self.end_s) else "the end"
            raise ClipSpanError(
                f"The span from {self.start_s:g} s to {end} does not lie inside the"
                f" clip of {lasts_s:.2f} s; choose another."
            )
        end_s = min(self.end_s, lasts_s)
        if end_s - self.start_s < limits.min_duration_s - SLACK_S:
            raise ClipTooShortError(
                f"The clip or span lasts {end_s - self.start_s:.3f} s, the least is"
                f" {limits.min_duration_s:g} s; send a longer one."
            )
        return clip.shown_at(spread_instants(self.start_s, end_s, offsets))


def _offsets(frames: int, jitter: "np.random.Generator | None") -> list[float]:
    """Place each frame in its span, as a share of it."""
    return [0.5] * frames if jitter is None else [float(at) for at in jitter.random(frames)]


def _bytes(source: bytes | Path, limits: MediaLimits) -> bytes:
    length = source.stat().st_size if isinstance(source, Path) else len(source)
    if length > limits.max_bytes:
        raise ClipTooLargeError(
            f"The clip has {length} bytes, {limits.max_bytes} are allowed;"
            " cut it, or encode it at a lower bit rate."
        )
    return source.read_bytes() if isinstance(source, Path) else source
