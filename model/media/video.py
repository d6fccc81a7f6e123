"""Bytes or a path -> T sampled RGB frames: the one way in for service, training and evaluation.

`read_clip` chooses the frames and has them decoded by PyAV; `model.media.pictures` resizes, crops
and turns them. No torch is imported.

Dimensions: T sampled frames, H = W = size, C = 3 channels (RGB).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from av.video.reformatter import VideoReformatter

from model.errors import (
    ClipSpanError,
    ClipTooLargeError,
    ClipTooShortError,
    ClipUndecodableError,
    NoFramesError,
)
from model.media.container import (
    MediaLimits,
    OpenVideo,
    check_duration,
    check_frames,
    library_errors,
    open_video,
    packet_times_s,
)
from model.media.pictures import square
from model.media.sampling import Clip, spread_indices

ROUNDING_S = 0.05  # players round a clip's length; `end_s` may exceed it by this much


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a decoder found: when every frame is shown, and the pixels of the chosen ones."""

    times_s: list[float]
    duration_s: float
    codec: str
    squares: dict[int, np.ndarray]  # index of a chosen frame -> uint8 [size, size, 3]


Chooser = Callable[[Sequence[float]], list[int]]  # times of all frames -> indices of the T samples
Decoder = Callable[[bytes, Chooser, int, MediaLimits], Decoded]


def decode_video(data: bytes, choose: Chooser, size: int, limits: MediaLimits) -> Decoded:
    """Count the frames by demultiplexing, then decode them and keep the chosen ones.

    Packets are not always frames. Where the decoded times change the choice, a second decoding
    gives the frames chosen by the true times.

    Raises:
        ClipError: One of its children, when the clip cannot be used.
    """
    with open_video(data, limits) as video:
        wanted = set(choose(packet_times_s(video, limits)))
    for _ in range(2):
        with open_video(data, limits) as video:
            decoded = _decode(video, wanted, size, limits)
        wanted = set(choose(decoded.times_s))
        if wanted <= decoded.squares.keys():
            return decoded
    raise ClipUndecodableError("The clip decodes differently each time; encode it again.")


def read_clip(
    source: bytes | Path,
    *,
    frames: int,
    size: int,
    limits: MediaLimits,
    start_s: float | None = None,
    end_s: float | None = None,
    jitter: np.random.Generator | None = None,
    decode: Decoder = decode_video,
) -> Clip:
    """Read a video and sample its frames, each from one of equal spans.

    Args:
        source: The encoded clip, or a trusted file that holds it.
        frames: T, how many frames to sample; a shorter clip repeats frames.
        size: Height and width of the result in pixels.
        limits: What is accepted.
        start_s: Sample from here on, counted from the first frame; the first frame if None.
        end_s: Sample frames before this; to the last frame if None.
        jitter: Draws one random frame inside each span; the centre of each span if None.
        decode: What decodes the chosen frames.

    Raises:
        ClipError: One of its children, when the clip cannot be used.
    """
    data, span = _bytes(source, limits), _Span(start_s, end_s)
    offsets = [0.5] * frames if jitter is None else jitter.random(frames).tolist()
    decoded = decode(data, lambda times_s: span.choose(times_s, offsets), size, limits)
    chosen = span.choose(decoded.times_s, offsets)
    span.check(decoded, chosen, limits)
    return Clip(
        frames_THWC=np.stack([decoded.squares[k] for k in chosen]),
        times_s=tuple(decoded.times_s[k] for k in chosen),
        duration_s=decoded.duration_s,
        codec=decoded.codec,
        distinct=len(set(chosen)),
    )


class _Span:
    """The part of a clip between `start_s` and `end_s`."""

    def __init__(self, start_s: float | None, end_s: float | None) -> None:
        self.whole = start_s is None and end_s is None
        self.start_s = 0.0 if start_s is None else start_s
        self.end_s = math.inf if end_s is None else end_s
        if not 0 <= self.start_s < self.end_s or math.isinf(self.start_s):
            raise ClipSpanError(
                f"The span from {start_s} s to {end_s} s is empty or starts before the clip;"
                " give 0 <= start_s < end_s."
            )

    def choose(self, times_s: Sequence[float], offsets: Sequence[float]) -> list[int]:
        """Choose one frame at each offset of equal parts; none where the span holds no frame."""
        inside = [k for k, time_s in enumerate(times_s) if self.start_s <= time_s < self.end_s]
        return [inside[k] for k in spread_indices(len(inside), offsets)] if inside else []

    def check(self, decoded: Decoded, chosen: list[int], limits: MediaLimits) -> None:
        """Refuse a clip or span that is too short, and a span that is not inside the clip."""
        duration_s = decoded.duration_s
        check_duration(duration_s, limits)
        outside = not math.isinf(self.end_s) and self.end_s > duration_s + ROUNDING_S
        if not self.whole and (outside or not chosen):
            raise ClipSpanError(
                f"The span from {self.start_s:g} s to {self.end_s:g} s holds no frame, or does not"
                f" lie inside the clip of {duration_s:.2f} s; choose another."
            )
        lasts_s = min(self.end_s, duration_s) - self.start_s
        if lasts_s < limits.min_duration_s - 1e-6:
            raise ClipTooShortError(
                f"The clip or span lasts {lasts_s:.3f} s, the least is"
                f" {limits.min_duration_s:g} s; send a longer one."
            )


def _bytes(source: bytes | Path, limits: MediaLimits) -> bytes:
    length = source.stat().st_size if isinstance(source, Path) else len(source)
    if length > limits.max_bytes:
        raise ClipTooLargeError(
            f"The clip has {length} bytes, {limits.max_bytes} are allowed;"
            " cut it, or encode it at a lower bit rate."
        )
    return source.read_bytes() if isinstance(source, Path) else source


def _decode(video: OpenVideo, wanted: set[int], size: int, limits: MediaLimits) -> Decoded:
    unit = video.stream.time_base
    rate = video.stream.average_rate or video.stream.guessed_rate
    step_s = float(1 / rate) if rate else 0.0
    reformatter = VideoReformatter()
    squares: dict[int, np.ndarray] = {}
    times_s: list[float] = []
    first: int | None = None
    with library_errors("decoding the frames"):
        for frame in video.container.decode(video.stream):
            index = len(times_s)
            check_frames(index + 1, limits)
            stamp = frame.pts if frame.pts is not None else frame.dts
            if stamp is None or unit is None:
                times_s.append(index * step_s)
            else:
                first = stamp if first is None else first
                times_s.append(max(0.0, float((stamp - first) * unit)))
                step_s = float(frame.duration * unit) or step_s
            check_duration(times_s[-1], limits)
            if index in wanted:
                squares[index] = square(frame, size, limits, reformatter)
    if not times_s:
        raise NoFramesError("The video stream holds no frame that decodes; encode the clip again.")
    return Decoded(times_s, max(times_s) + step_s, video.codec, squares)
