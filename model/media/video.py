"""Bytes or a path -> T sampled RGB frames: the one way in for service, training and evaluation.

`read_clip` reads a video with PyAV, or with decord where a local file is trusted; `read_pictures`
takes a clip given as pictures. Sampling, resizing, cropping and rotation are the same for all.
`encode_pictures` and `decode_pictures` keep sampled frames without loss. No torch is imported.

Dimensions: T sampled frames, H = W = size, C = 3 channels (RGB).
"""

import importlib
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

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
    OpenVideo,
    check_duration,
    check_frames,
    library_errors,
    open_video,
    packet_times_s,
)
from model.media.picture import centre_crop, scaled, square
from model.media.pictures import decode_pictures, encode_pictures, read_pictures
from model.media.sampling import (
    UNLIMITED,
    Clip,
    MediaLimits,
    centre_indices,
    jittered_indices,
    spread_indices,
)

__all__ = [
    "UNLIMITED",
    "Clip",
    "MediaLimits",
    "centre_indices",
    "decode_pictures",
    "encode_pictures",
    "jittered_indices",
    "read_clip",
    "read_pictures",
]

Plan = Callable[[Sequence[float]], list[int]]  # times of all frames -> indices of the T samples
ROUNDING_S = 0.05  # players round a clip's length; `end_s` may exceed it by this much


def read_clip(
    source: bytes | Path,
    *,
    frames: int,
    size: int,
    limits: MediaLimits,
    reader: Literal["pyav", "decord"] = "pyav",
    start_s: float | None = None,
    end_s: float | None = None,
    jitter: np.random.Generator | None = None,
) -> Clip:
    """Read a video and sample its frames, each from one of equal spans.

    Args:
        source: The encoded clip, or a trusted file that holds it.
        frames: T, how many frames to sample; a shorter clip repeats frames.
        size: Height and width of the result in pixels.
        limits: What is accepted.
        reader: "decord" is for trusted bytes alone: it opens addresses that a file names.
        start_s: Sample from here on, counted from the first frame; the first frame if None.
        end_s: Sample frames before this; to the last frame if None.
        jitter: Draws one random frame inside each span; the centre of each span if None.

    Raises:
        ClipError: One of its children, when the clip cannot be used.
    """
    data = _bytes(source, limits)
    span = _Span(start_s, end_s)
    offsets = [0.5] * frames if jitter is None else jitter.random(frames).tolist()

    def plan(times_s: Sequence[float]) -> list[int]:
        chosen = span.select(times_s)
        return [chosen[k] for k in spread_indices(len(chosen), offsets)] if chosen else []

    read = _read_decord if reader == "decord" else _read_pyav
    decoded = read(data, plan, size, limits)
    picked = plan(decoded.times_s)
    span.check(decoded, picked, limits)
    return Clip(
        frames_THWC=np.stack([decoded.squares[k] for k in picked]),
        times_s=tuple(decoded.times_s[k] for k in picked),
        duration_s=decoded.duration_s,
        codec=decoded.codec,
        distinct=len(set(picked)),
    )


@dataclass(frozen=True, slots=True)
class _Decoded:
    """What a reader found: when every frame is shown, and the pixels of the planned ones."""

    times_s: list[float]
    duration_s: float
    codec: str
    squares: dict[int, np.ndarray]


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

    def select(self, times_s: Sequence[float]) -> list[int]:
        return [k for k, time_s in enumerate(times_s) if self.start_s <= time_s < self.end_s]

    def check(self, decoded: _Decoded, picked: list[int], limits: MediaLimits) -> None:
        """Refuse a clip or span that is too short, and a span that is not inside the clip."""
        duration_s = decoded.duration_s
        check_duration(duration_s, limits)
        outside = not math.isinf(self.end_s) and self.end_s > duration_s + ROUNDING_S
        if not self.whole and (outside or not picked):
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


def _read_pyav(data: bytes, plan: Plan, size: int, limits: MediaLimits) -> _Decoded:
    """Count by demultiplexing, then decode and convert the planned frames alone.

    Packets are not always frames. Where the decoded times change the plan, a second decoding with
    the true times gives the frames that the rule asks for.
    """
    with open_video(data, limits) as video:
        wanted = set(plan(packet_times_s(video, limits)))
    for _ in range(2):
        with open_video(data, limits) as video:
            decoded = _decode(video, wanted, size, limits)
        wanted = set(plan(decoded.times_s))
        if wanted <= decoded.squares.keys():
            return decoded
    raise ClipUndecodableError("The clip decodes differently each time; encode it again.")


def _decode(video: OpenVideo, wanted: set[int], size: int, limits: MediaLimits) -> _Decoded:
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
    return _Decoded(times_s, max(times_s) + step_s, video.codec, squares)


def _read_decord(data: bytes, plan: Plan, size: int, limits: MediaLimits) -> _Decoded:
    """Read with decord what PyAV's headers allow; decord resizes by itself, also bicubic."""
    try:
        decord: Any = importlib.import_module("decord")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "reader='decord' needs the package decord; install kshot[decord]."
        ) from error
    with open_video(data, limits) as video:
        codec, context = video.codec, video.stream.codec_context
        width, height = scaled(context.width, context.height, size)
        packet_times_s(video, limits)
    try:
        reader = decord.VideoReader(io.BytesIO(data), width=width, height=height, num_threads=1)
        check_frames(len(reader), limits)
        stamps = reader.get_frame_timestamp(range(len(reader)))
        times_s = (stamps[:, 0] - stamps[0, 0]).tolist()
        wanted = sorted(set(plan(times_s)))
        pixels = reader.get_batch(wanted).asnumpy() if wanted else np.empty((0, size, size, 3))
    except (decord.DECORDError, IndexError, RuntimeError) as error:
        raise ClipUndecodableError(
            f"decord gave up on the clip ({type(error).__name__}); read it with PyAV."
        ) from error
    squares = dict(zip(wanted, centre_crop(pixels, size), strict=True))
    return _Decoded(times_s, float(stamps[-1, 1] - stamps[0, 0]), codec, squares)
