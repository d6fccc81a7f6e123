"""What a video says of itself, before any picture is decoded: cheap to read, and checked.

It is a guess: packets may hold no picture that is shown, and headers lie. So whoever decodes
checks again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple, Self

import av
from av.video.stream import VideoStream

from model.errors import NoFramesError
from model.media.container import (
    MediaLimits,
    OpenVideo,
    check_duration,
    check_frames,
    library_errors,
    open_video,
)
from model.media.sampling import Timeline, timeline


@dataclass(frozen=True, slots=True)
class Header:
    """What the container says of its video stream."""

    codec: str
    width: int  # as coded: before rotation, and in pixels that need not be square
    height: int
    timeline: Timeline  # of its packets, in the order in which they are shown


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
    shown: list[Shown] = []
    with library_errors("reading the container's packets"):
        for packet in video.container.demux(video.stream):
            if packet.size and not packet.is_discard:
                check_frames(len(shown) + 1, limits)
                shown.append(Shown.of(packet))
    if not shown:
        raise NoFramesError("The video stream holds no packet; send a clip with frames.")
    if all(each.stamp is not None for each in shown):
        shown.sort(key=lambda each: each.stamp or 0)
    found = timeline_of(shown, video)
    check_duration(found.times_s[-1], limits)
    return Header(video.codec, *size, found)


class Shown(NamedTuple):
    """When a packet or a frame is shown, and how long, in units of its stream."""

    stamp: int | None
    lasts: int

    @classmethod
    def of(cls, source: "av.Packet[VideoStream] | av.VideoFrame") -> Self:
        """Read it; decoding time stands for a missing time of presentation."""
        stamp = source.pts if source.pts is not None else source.dts
        return cls(stamp, source.duration or 0)


def timeline_of(shown: Sequence[Shown], video: OpenVideo) -> Timeline:
    """Make a timeline; the frame rate stands for missing times and for the last one's length."""
    rate = video.stream.average_rate or video.stream.guessed_rate
    step_s = float(1 / rate) if rate else 0.0
    unit = video.stream.time_base or Fraction(0)
    stamps = [each.stamp for each in shown if each.stamp is not None]
    if unit == 0 or len(stamps) < len(shown):
        return timeline([k * step_s for k in range(len(shown))], step_s, 0.0)
    first, last = min(stamps), shown[stamps.index(max(stamps))]
    times_s = [float((stamp - first) * unit) for stamp in stamps]
    return timeline(times_s, float(last.lasts * unit) or step_s, float(unit))
