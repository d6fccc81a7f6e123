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
)
from model.media.headers import Shown, read_header, timeline_of
from model.media.pictures import square
from model.media.sampling import SLACK_S, Clip, Timeline, spread_instants

ROUNDING_S = 0.05  # players round a clip's length; `end_s` may exceed it by this much


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a decoder found: when every frame is shown, and the pixels of the chosen ones."""

    timeline: Timeline
    codec: str
    squares: dict[int, np.ndarray]  # index of a chosen frame -> uint8 [size, size, 3]


Chooser = Callable[[Timeline], list[int]]  # of all frames -> indices of the T samples
Decoder = Callable[[bytes, Chooser, int, MediaLimits], Decoded]


def decode_video(data: bytes, choose: Chooser, size: int, limits: MediaLimits) -> Decoded:
    """Choose frames by the times of the packets, then decode them.

    Packets are not always frames. Where the decoded times change the choice, a second decoding
    gives the frames chosen by the true times.

    Raises:
        ClipError: One of its children, when the clip cannot be used.
    """
    wanted = set(choose(read_header(data, limits).timeline))
    for _ in range(2):
        with open_video(data, limits) as video:
            decoded = _decode(video, wanted, size, limits)
        wanted = set(choose(decoded.timeline))
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

    Raises:
        ClipError: One of its children, when the clip cannot be used.
    """
    data, span = _bytes(source, limits), _Span(start_s, end_s)
    offsets = [0.5] * frames if jitter is None else jitter.random(frames).tolist()
    decoded = decode(data, lambda found: span.choose(found, offsets, limits), size, limits)
    found = decoded.timeline
    chosen = span.choose(found, offsets, limits)
    return Clip(
        frames_THWC=np.stack([decoded.squares[k] for k in chosen]),
        times_s=tuple(found.times_s[k] for k in chosen),
        duration_s=found.duration_s,
        codec=decoded.codec,
        distinct=len(set(chosen)),
    )


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


def _bytes(source: bytes | Path, limits: MediaLimits) -> bytes:
    length = source.stat().st_size if isinstance(source, Path) else len(source)
    if length > limits.max_bytes:
        raise ClipTooLargeError(
            f"The clip has {length} bytes, {limits.max_bytes} are allowed;"
            " cut it, or encode it at a lower bit rate."
        )
    return source.read_bytes() if isinstance(source, Path) else source


def _decode(video: OpenVideo, wanted: set[int], size: int, limits: MediaLimits) -> Decoded:
    reformatter = VideoReformatter()
    squares: dict[int, np.ndarray] = {}
    shown: list[Shown] = []
    with library_errors("decoding the frames"):
        for index, frame in enumerate(video.container.decode(video.stream)):
            check_frames(index + 1, limits)
            shown.append(Shown.of(frame))
            if index in wanted:
                squares[index] = square(frame, size, limits, reformatter)
    if not shown:
        raise NoFramesError("The video stream holds no frame that decodes; encode the clip again.")
    return Decoded(timeline_of(shown, video), video.codec, squares)
