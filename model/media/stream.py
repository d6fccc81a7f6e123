"""The pictures of a long video at the instants of a grid, decoded once, from the first to the last.

At each instant stands the picture that a player shows then, as in a clip (`model.media.sampling`).
One picture is held, so memory does not grow with the video. Pictures that are not whole are passed
over: the last whole one stays on the screen, and where none follows, the video ends with it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import av
import numpy as np
from av.packet import Packet
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from model.errors import ClipTooShortError, ClipUndecodableError, NoFramesError
from model.media.container import (
    MediaLimits,
    OpenVideo,
    check_duration,
    check_frames,
    library_errors,
)
from model.media.display import Framing, deinterlaced, square
from model.media.headers import by_coding, step_s
from model.media.sampling import SLACK_S
from model.media.windows import WindowGrid

DAMAGED = "From {:.2f} s on {} of {} pictures are not whole; the last whole one stands for them."
ENDS_EARLY = (
    "The file says that it lasts {:.2f} s and can be decoded up to {:.2f} s; used to there."
)
NOT_STARTED_S = 1.0  # the first picture comes so long after the stream's own start, at most
SHORT_S = 1.0  # by which a video may end before its header says so


class Shown(NamedTuple):
    """A picture at an instant of the grid."""

    number: int
    pixels: np.ndarray  # uint8 [size, size, 3]


@dataclass(frozen=True, slots=True)
class StreamEnd:
    """What was known when the video had ended."""

    duration_s: float
    codec: str
    warnings: tuple[str, ...]


class _Held(NamedTuple):
    """The picture on the screen."""

    frame: av.VideoFrame
    since_s: float


class PictureStream:
    """Gives the pictures that windows look at, in order.

    Args:
        video: Just opened, and open for as long as pictures are asked for.
        grid: Where the windows are.
        framing: Of the pictures.
        limits: What is accepted.
    """

    def __init__(
        self, video: OpenVideo, grid: WindowGrid, framing: Framing, limits: MediaLimits
    ) -> None:
        self.reached_s = 0.0
        self.decoded = 0  # pictures, whole or not
        self.end: StreamEnd | None = None  # once it has been reached
        self._video, self._grid, self._limits = video, grid, limits
        self._framing = framing
        self._wanted = grid.wanted()
        self._next = next(self._wanted)
        self._held: _Held | None = None
        self._before: av.VideoFrame | None = None  # the held one, where it is interlaced
        self._origin: int | None = None
        self._timed = not by_coding(video)
        self._step_s = step_s(video)
        self._last_s = self._step_s  # how long the last picture is shown
        self._broken, self._broken_s = 0, 0.0
        self._reformatter = VideoReformatter()

    def steps(self) -> Iterator[list[Shown]]:
        """Go on by a packet at a time; yield the pictures that it brings, often none.

        Raises:
            ClipError: One of its children, when the video cannot be used (any further).
        """
        with library_errors("decoding the video"):
            for packet in self._packets():
                yield [shown for frame in self._decode(packet) for shown in self._see(frame)]
            yield [shown for frame in self._decode(None) for shown in self._see(frame)]
            yield self._finish()

    def _packets(self) -> "Iterator[Packet[VideoStream]]":
        demuxed = self._video.container.demux(self._video.stream)
        while True:
            try:
                packet = next(demuxed)
            except MemoryError:
                raise
            except (StopIteration, av.FFmpegError):
                return
            if packet.size:
                yield packet

    def _decode(self, packet: "Packet[VideoStream] | None") -> list[av.VideoFrame]:
        try:
            return list(self._video.decoder.decode(packet))
        except MemoryError:
            raise
        except (av.FFmpegError, EOFError):
            if packet is not None:
                self._note_broken()
            return []

    def _note_broken(self) -> None:
        self.decoded += 1
        if not self._broken:
            self._broken_s = self.reached_s
        self._broken += 1
        check_frames(self.decoded, self._limits)

    def _see(self, frame: av.VideoFrame) -> list[Shown]:
        """Take the next picture; return those instants at which the one before it stands."""
        if frame.is_corrupt:
            self._note_broken()
            return []
        self._check_whole()
        at_s = self._time(frame)
        self.decoded += 1
        check_frames(self.decoded, self._limits)
        check_duration(at_s, self._limits)
        if self._held is None:
            self._held = _Held(frame, at_s)
            return []
        if at_s < self._held.since_s:
            return []  # out of order
        shown = self._until(at_s, frame)
        self._before = self._held.frame if self._held.frame.interlaced_frame else None
        self._last_s = at_s - self._held.since_s
        self._held = _Held(frame, at_s)
        self.reached_s = at_s
        return shown

    def _check_whole(self) -> None:
        """Refuse a video that is mostly broken before anything of it was shown."""
        if self._held is None and 2 * self._broken > self.decoded + 1:
            self._refuse()

    def _refuse(self) -> None:
        if self._broken:
            raise ClipUndecodableError(
                f"Of the first {self.decoded} pictures {self._broken} are damaged or encrypted;"
                " send a complete, unencrypted video."
            )
        raise NoFramesError("The video stream holds no frame that decodes; encode it again.")

    def _time(self, frame: av.VideoFrame) -> float:
        """Return when a picture is shown, seconds from the first."""
        stamp = frame.pts if frame.pts is not None else frame.dts
        unit = self._video.stream.time_base
        if stamp is None or unit is None or not self._timed:
            return self.decoded * self._step_s
        if self._origin is None:
            start = self._video.stream.start_time
            late = start is None or not 0 <= (stamp - start) * unit <= NOT_STARTED_S
            self._origin = stamp if late or start is None else start
        if frame.duration:
            self._step_s = float(frame.duration * unit)
        return float((stamp - self._origin) * unit)

    def _until(self, end_s: float, after: av.VideoFrame | None) -> list[Shown]:
        """Show the held picture at the instants before `end_s`."""
        shown: list[Shown] = []
        pixels: np.ndarray | None = None
        while self._grid.instant_s(self._next) + SLACK_S < end_s:
            if pixels is None:
                pixels = self._pixels(after)
            shown.append(Shown(self._next, pixels))
            self._next = next(self._wanted)
        return shown

    def _pixels(self, after: av.VideoFrame | None) -> np.ndarray:
        assert self._held is not None
        frame = self._held.frame
        if frame.interlaced_frame:
            order = self._video.decoder.field_order
            frame = deinterlaced(self._before, frame, after, order)
        aspect = self._video.pixel_aspect
        return square(frame, self._framing, self._limits, self._reformatter, aspect)

    def _finish(self) -> list[Shown]:
        if self._held is None:
            self._refuse()
        assert self._held is not None
        lasts_s = self._held.since_s + (self._step_s or self._last_s)
        check_duration(lasts_s, self._limits)
        if lasts_s < self._limits.min_duration_s - SLACK_S:
            raise ClipTooShortError(
                f"The video lasts {lasts_s:.3f} s, the least is {self._limits.min_duration_s:g} s;"
                " send a longer one."
            )
        shown = self._until(lasts_s, None)
        self.reached_s = lasts_s
        self.end = StreamEnd(lasts_s, self._video.codec, tuple(self._warnings(lasts_s)))
        return shown

    def _warnings(self, lasts_s: float) -> Iterator[str]:
        if self._broken:
            yield DAMAGED.format(self._broken_s, self._broken, self.decoded)
        claimed_s = claimed_duration(self._video)
        if claimed_s is not None and lasts_s < claimed_s - SHORT_S:
            yield ENDS_EARLY.format(claimed_s, lasts_s)


def claimed_duration(video: OpenVideo) -> float | None:
    """Return how long a video lasts by its headers; None where they do not say."""
    stream, container = video.stream, video.container
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return None if container.duration is None else container.duration / av.time_base
