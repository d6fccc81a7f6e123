"""What a video says of itself, before any picture is decoded: cheap to read, and checked.

It is a guess: packets may hold no picture that is shown, and headers lie. So whoever decodes
checks again.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from model.errors import ClipUndecodableError, NoFramesError
from model.media.container import (
    MediaLimits,
    OpenVideo,
    check_duration,
    check_frames,
    library_errors,
    open_video,
)
from model.media.keys import starts_afresh
from model.media.sampling import Timeline, timeline


class Start(NamedTuple):
    """A packet that decoding may start at."""

    position: int  # among the stream's packets, in the order of the file
    stamp: int  # when its picture is shown


@dataclass(frozen=True, slots=True)
class Header:
    """What the container says of its video stream."""

    codec: str
    width: int  # as coded: before rotation, and in pixels that need not be square
    height: int
    timeline: Timeline  # of its packets, in the order in which they are shown
    timed: bool  # frames carry their times; otherwise stamps are numbers, and there are no starts
    stamps: tuple[int, ...]  # of its packets, in that order, in the container's unit
    starts: tuple[Start, ...]  # from the beginning of the file to its end
    all_fresh: bool  # no packet is called a key frame without being one of `starts`
    whole: bool  # the file does not end before its last packet does


def read_header(data: bytes, limits: MediaLimits) -> Header:
    """Read a video's headers and the times of its packets, and refuse what they rule out.

    Raises:
        ClipError: One of its children, when the clip cannot be used.
    """
    with open_video(data, limits) as video:
        return header_of(video, limits)


def header_of(video: OpenVideo, limits: MediaLimits) -> Header:
    """Read the header of an opened video; its packets are used up then."""
    context = video.stream.codec_context
    size = context.width, context.height
    packets = _Packets(video, limits)
    if not packets.stamps:
        raise NoFramesError("The video stream holds no packet; send a clip with frames.")
    stamps = sorted(stamp for stamp in packets.stamps if stamp is not None)
    known = bool(video.stream.time_base) and len(stamps) == len(packets.stamps)
    found = _timeline(stamps, packets, video) if known else _steady(len(packets.stamps), video)
    timed = known and not by_coding(video)
    check_duration(found.times_s[-1], limits)
    return Header(
        video.codec,
        *size,
        found,
        timed=timed,
        stamps=tuple(stamps) if timed else tuple(range(len(packets.stamps))),
        starts=tuple(packets.starts) if timed else (),
        all_fresh=packets.all_fresh,
        whole=packets.whole,
    )


class _Packets:
    """The packets of an opened video, read from the first to the last."""

    def __init__(self, video: OpenVideo, limits: MediaLimits) -> None:
        self.stamps: list[int | None] = []
        self.lengths: list[int] = []
        self.starts: list[Start] = []
        self.all_fresh = self.whole = True
        try:
            with library_errors("reading the container's packets"):
                self._read(video, limits)
        except ClipUndecodableError:
            if not self.stamps:
                raise
            self.whole = False

    def _read(self, video: OpenVideo, limits: MediaLimits) -> None:
        setup = video.stream.codec_context.extradata or b""
        for position, packet in enumerate(video.container.demux(video.stream)):
            if not packet.size:
                continue
            stamp = packet.pts if packet.pts is not None else packet.dts
            if not packet.is_discard:
                check_frames(len(self.stamps) + 1, limits)
                self.stamps.append(stamp)
                self.lengths.append(packet.duration or 0)
                self.whole &= not packet.is_corrupt
            if packet.is_keyframe:
                fresh = starts_afresh(video.codec, bytes(packet), setup)
                self.all_fresh &= fresh
                if fresh and stamp is not None:
                    self.starts.append(Start(position, stamp))


def by_coding(video: OpenVideo) -> bool:
    """Tell whether packets have the times at which they are decoded, not shown.

    AVI has no others. FFmpeg works out when pictures are shown for MPEG-4, not for these.
    """
    reordering = video.codec in ("h264", "hevc") and video.stream.codec_context.has_b_frames
    return bool(reordering) and video.container.format.name == "avi"


def _timeline(stamps: list[int], packets: _Packets, video: OpenVideo) -> Timeline:
    unit = video.stream.time_base or Fraction(1)
    first = stamps[0]
    times_s = [float((stamp - first) * unit) for stamp in stamps]
    last = packets.lengths[packets.stamps.index(stamps[-1])]
    return timeline(times_s, float(last * unit) or step_s(video), float(unit))


def _steady(count: int, video: OpenVideo) -> Timeline:
    """Make the timeline of a container without times from its frame rate."""
    each_s = step_s(video)
    return timeline([k * each_s for k in range(count)], each_s, 0.0)


def step_s(video: OpenVideo) -> float:
    """Return the time from frame to frame that a container claims; 0 where it does not say."""
    rate = video.stream.average_rate or video.stream.guessed_rate
    return float(1 / rate) if rate else 0.0
