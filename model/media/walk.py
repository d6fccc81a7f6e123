"""One way through the packets of a video, which decodes what is needed for some pictures."""

from collections.abc import Iterator
from typing import NamedTuple

import av
import numpy as np
from av.packet import Packet
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from model.media.container import MediaLimits, OpenVideo
from model.media.display import Framing, deinterlaced, square
from model.media.headers import Header

PROGRESSIVE = 1  # FFmpeg's field orders: unknown, progressive, and four interlaced ones


class _Reach(NamedTuple):
    """The packets among which a picture is found."""

    begin: int
    end: int | None  # exclusive; None is the end of the file


class _Waiting(NamedTuple):
    """An interlaced frame, which is shown with what its neighbours tell of its missing lines."""

    stamp: int
    before: av.VideoFrame | None
    frame: av.VideoFrame


class Walk:
    """A walk from the first packet to the last; what was found is in its fields.

    Args:
        video: Just opened.
        header: Of it.
        wanted: Stamps of pictures.
        framing: Of the result.
        limits: What is accepted.
        careful: Begin one start earlier, leave nothing out, and take the nearest picture for one
            that is not there.
    """

    def __init__(
        self,
        video: OpenVideo,
        header: Header,
        wanted: set[int],
        framing: Framing,
        limits: MediaLimits,
        *,
        careful: bool,
    ) -> None:
        self.shown: dict[int, int] = {}  # wanted stamp -> that of the picture in its place
        self.squares: dict[int, np.ndarray] = {}
        self.tried = self.broken = 0  # pictures; of them those that are not whole
        self.out_of_order = False
        self._video, self._header = video, header
        self._framing, self._limits = framing, limits
        self._careful = careful
        self._reaches = {stamp: self._reach(stamp) for stamp in wanted}
        self._skips = header.timed and not careful and video.decoder.field_order <= PROGRESSIVE
        self._reformatter = VideoReformatter()
        self._frames = 0
        self._newest: int | None = None  # stamp of the last frame that came
        self._before: av.VideoFrame | None = None  # that frame, if it is interlaced
        self._waiting: _Waiting | None = None
        self._nearest: dict[int, tuple[int, av.VideoFrame]] = {}

    def _reach(self, stamp: int) -> _Reach:
        """From the last start that is shown before the picture, to the next start but one."""
        starts = self._header.starts
        before = [number for number, start in enumerate(starts) if start.stamp <= stamp]
        first = max(before, default=-1) - self._careful
        begin = starts[first].position if first >= 0 else 0
        after = max(before, default=-1) + 2
        return _Reach(begin, starts[after].position if after < len(starts) else None)

    def go(self) -> None:
        """Walk until every wanted picture was found, or the packets end."""
        fed = False
        for position, packet in self._packets():
            begun = {s: r for s, r in self._reaches.items() if r.begin <= position}
            if any(reach.end is None or position < reach.end for reach in begun.values()):
                self._feed(packet)
                fed = True
                continue
            if fed and begun:
                self._drain()
            elif fed:
                self._video.decoder.flush_buffers()
            fed, self._before = False, None
            self._give_up(list(begun))
            if not self._reaches:
                return
        if fed:
            self._drain()
        self._give_up(list(self._reaches))

    def _packets(self) -> "Iterator[tuple[int, Packet[VideoStream]]]":
        """Give the packets until they end or the file is damaged; the last one has no size."""
        demuxed = enumerate(self._video.container.demux(self._video.stream))
        while True:
            try:
                position, packet = next(demuxed)
            except MemoryError:
                raise
            except (StopIteration, av.FFmpegError):
                return
            if packet.size:
                yield position, packet

    def _feed(self, packet: "Packet[VideoStream]") -> None:
        stamp = packet.pts if packet.pts is not None else packet.dts
        skipped = self._skips and stamp not in self._reaches
        self._video.decoder.skip_frame = "NONREF" if skipped else "DEFAULT"
        self._decode(packet)

    def _drain(self) -> None:
        """Get what the decoder still holds, and make it ready to start anew."""
        self._decode(None)
        self._show_waiting(None)
        self._video.decoder.flush_buffers()

    def _decode(self, packet: "Packet[VideoStream] | None") -> None:
        try:
            frames = self._video.decoder.decode(packet)
        except MemoryError:
            raise
        except (av.FFmpegError, EOFError):
            self.tried += 1
            self.broken += 1
            return
        for frame in frames:
            self._see(frame)

    def _see(self, frame: av.VideoFrame) -> None:
        stamp = frame.pts if frame.pts is not None else frame.dts
        if stamp is None or not self._header.timed:
            stamp = self._frames
        self._frames += 1
        self.tried += 1
        self.broken += frame.is_corrupt
        self._show_waiting(frame)
        self.out_of_order |= self._newest is not None and stamp < self._newest
        self._newest = stamp
        if stamp not in self._reaches:
            if self._careful:
                self._note(stamp, frame)
        elif frame.interlaced_frame:
            self._waiting = _Waiting(stamp, self._before, frame)
        else:
            self._show(stamp, stamp, frame)
        self._before = frame if frame.interlaced_frame else None
        self._skips &= not frame.interlaced_frame

    def _show_waiting(self, after: av.VideoFrame | None) -> None:
        if self._waiting is not None:
            stamp, before, frame = self._waiting
            self._waiting = None
            order = self._video.decoder.field_order
            self._show(stamp, stamp, deinterlaced(before, frame, after, order))

    def _note(self, stamp: int, frame: av.VideoFrame) -> None:
        """Keep a frame for the wanted pictures that it is next to: before them, if there is one."""
        for wanted in self._reaches:
            kept = self._nearest.get(wanted)
            if kept is None or _nearness(stamp, wanted) > _nearness(kept[0], wanted):
                self._nearest[wanted] = stamp, frame

    def _give_up(self, wanted: list[int]) -> None:
        """Show the nearest pictures in the place of those that were not found."""
        for stamp in wanted:
            if stamp in self._nearest:
                there, frame = self._nearest.pop(stamp)
                whole = deinterlaced(None, frame, None) if frame.interlaced_frame else frame
                self._show(stamp, there, whole)
            self._reaches.pop(stamp, None)

    def _show(self, wanted: int, stamp: int, frame: av.VideoFrame) -> None:
        self._reaches.pop(wanted, None)
        self._nearest.pop(wanted, None)
        self.shown[wanted] = stamp
        if stamp not in self.squares:
            aspect = self._video.pixel_aspect
            self.squares[stamp] = square(
                frame, self._framing, self._limits, self._reformatter, aspect
            )


def _nearness(stamp: int, wanted: int) -> tuple[bool, int]:
    return stamp < wanted, -abs(stamp - wanted)
