"""What a clip may be, and the PyAV seam: untrusted bytes -> an opened, checked video stream.

The container is told from its first bytes and its demuxer forced, so no probing can choose a
playlist, a subtitle file or a picture sequence. Header values are checked here, and once more by
whoever decodes, because headers lie. Every library error leaves as a `ClipError`.
"""

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO, cast

import av
from av.container import InputContainer
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from model.errors import (
    ClipDecodeTimeoutError,
    ClipTooLongError,
    ClipUndecodableError,
    CodecNotAllowedError,
    ContainerNotAllowedError,
    NoVideoStreamError,
    PictureTooLargeError,
    TooManyFramesError,
    TooManyStreamsError,
)

MP4_FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip", b"pnot", b"styp", b"moof")
DEMUXERS = {"mp4": "mp4", "webm": "matroska", "avi": "avi", "ts": "mpegts"}
# MPEG-TS has no head: packets of fixed length begin with a mark, in .m2ts and .mts after a time.
TS_MARK, TS_MARKS = 0x47, 5
TS_PACKETS = ((0, 188), (4, 192), (0, 204))  # place of the first mark, bytes from mark to mark
DECODERS = {"av1": "libdav1d,libaom-av1,av1"}  # where FFmpeg's decoder is not named as the codec
WITH_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
PROBE_BYTES = 1_000_000
PROBE_US = 1_000_000
MAX_ASPECT = 16
SNIFFED_BYTES = 1024  # enough for `sniff`


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaLimits:
    """What one clip may be; the defaults are the service's."""

    max_bytes: int = 192 * 2**20  # of the encoded clip, or of all its pictures together
    min_duration_s: float = 0.2
    max_duration_s: float = 120.0
    max_pixels: int = 36_000_000  # of one picture: a little over 8K, 8192 x 4320
    max_frames: int = 14_400  # packets of the whole clip: a minute of slow motion at 240 a second
    max_streams: int = 8  # video, audio, subtitles and data; phones write five
    containers: tuple[str, ...] = ("mp4", "webm", "avi", "ts")  # mov is mp4, mkv webm, m2ts ts
    codecs: tuple[str, ...] = ("h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mpeg2video")
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


def sniff(data: bytes) -> str | None:
    """Tell "mp4", "webm", "avi" or "ts" by the first bytes; None for anything else."""
    if data[4:8] in MP4_FIRST_BOXES:
        return "mp4"
    if data[:4] == b"\x1a\x45\xdf\xa3":  # EBML
        return "webm"
    if data[:4] == b"RIFF" and data[8:12] == b"AVI ":
        return "avi"
    return "ts" if any(_keeps_time(data, *packet) for packet in TS_PACKETS) else None


def check_kind(head: bytes, limits: MediaLimits) -> str:
    """Tell the container by the first bytes, which no library reads.

    Raises:
        ClipError: There are none, or they are of no container that is taken.
    """
    if not head:
        raise ClipUndecodableError("The clip has no bytes; send the whole file.")
    kind = sniff(head)
    if kind is None or kind not in limits.containers:
        raise ContainerNotAllowedError(
            f"The clip's first bytes {head[:12]!r} are no container of"
            f" {', '.join(limits.containers)}; convert the clip to one of these."
        )
    return kind


def _keeps_time(data: bytes, first: int, length: int) -> bool:
    """Tell whether a transport stream's mark stands at the head of each of its first packets."""
    marks = data[first : first + TS_MARKS * length : length]
    return len(marks) == TS_MARKS and set(marks) == {TS_MARK}


@contextmanager
def library_errors(doing: str) -> Iterator[None]:
    """Translate whatever FFmpeg or Pillow raises over a clip; `doing` completes "while ..."."""
    try:
        yield
    except MemoryError as error:
        raise ClipDecodeTimeoutError(
            f"The decoder ran out of memory while {doing}; send a smaller or shorter clip."
        ) from error
    except (
        av.FFmpegError,
        ArithmeticError,
        EOFError,
        LookupError,
        NotImplementedError,
        OSError,
        SyntaxError,  # Pillow's word for a damaged picture
        TypeError,
        ValueError,
        struct.error,
    ) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise ClipUndecodableError(
            f"The decoder gave up while {doing} ({reason}); send a complete, unencrypted clip."
        ) from error


@dataclass(frozen=True, slots=True)
class OpenVideo:
    """One opened container and its video stream."""

    container: InputContainer
    stream: VideoStream
    codec: str
    decoder: VideoCodecContext  # the stream's own, or one that also gives what is transparent
    pixel_aspect: Fraction  # width of a pixel / its height


@contextmanager
def open_video(source: bytes | BinaryIO, limits: MediaLimits) -> Iterator[OpenVideo]:
    """Open a clip, or a file at its beginning, with a forced demuxer; check what headers claim."""
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    kind = check_kind(file.read(SNIFFED_BYTES), limits)
    file.seek(0)
    decoders = ",".join(DECODERS.get(codec, codec) for codec in limits.codecs)
    options = {
        "probesize": str(PROBE_BYTES),
        "analyzeduration": str(PROBE_US),
        "codec_whitelist": decoders,
        "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts",
        "protocol_whitelist": "pipe",  # a name inside the clip is never opened
        "max_pixels": _decoder_pixels(limits),
        "threads": "1",
    }
    with library_errors(f"opening the {kind} container"):
        container = av.open(
            file, "r", format=DEMUXERS[kind], options=options, metadata_errors="replace"
        )
    with container:
        with library_errors("reading the container's headers"):
            video = _checked(container, limits)
        yield video


def _checked(container: InputContainer, limits: MediaLimits) -> OpenVideo:
    if len(container.streams) > limits.max_streams:
        raise TooManyStreamsError(
            f"The clip has {len(container.streams)} streams, {limits.max_streams} are allowed;"
            " keep its video stream alone."
        )
    stream = _moving(container, limits)
    codec = _codec_name(stream)
    if codec not in limits.codecs:
        raise CodecNotAllowedError(
            f"The codec {codec!r} is not one of {', '.join(limits.codecs)};"
            " re-encode the clip with one of these."
        )
    check_picture(stream.codec_context.width, stream.codec_context.height, limits)
    check_frames(stream.frames, limits)
    if stream.duration is not None and stream.time_base is not None:
        check_duration(float(stream.duration * stream.time_base), limits)
    elif container.duration is not None:
        check_duration(container.duration / av.time_base, limits)
    decoder = _decoder(stream, codec)
    decoder.thread_count = 1
    decoder.options = {"max_pixels": _decoder_pixels(limits)}
    aspect = stream.sample_aspect_ratio or decoder.sample_aspect_ratio or Fraction(1)
    return OpenVideo(container, stream, codec, decoder, aspect)


def _moving(container: InputContainer, limits: MediaLimits) -> VideoStream:
    """Choose the video stream: the first that is no cover picture, of a codec that is taken."""
    streams = [
        stream
        for stream in container.streams.video
        if not stream.disposition & av.stream.Disposition.attached_pic
    ]
    if not streams:
        found = sorted({stream.type for stream in container.streams})
        raise NoVideoStreamError(
            f"The clip has no video stream, only {found}; send a clip with pictures."
        )
    return max(streams, key=lambda each: (_codec_name(each) in limits.codecs, each.frames != 1))


def _decoder(stream: VideoStream, codec: str) -> VideoCodecContext:
    """Give the stream's decoder; of FFmpeg's own, those of VP8 and VP9 leave out transparency."""
    name = WITH_ALPHA.get(codec)
    if name is None or stream.metadata.get("alpha_mode") != "1" or name not in av.codecs_available:
        return stream.codec_context
    return cast(VideoCodecContext, av.CodecContext.create(name, "r"))


def _decoder_pixels(limits: MediaLimits) -> str:
    # coded sizes are padded, so the decoder gets more room; `check_picture` is exact
    padded = limits.max_pixels + min(limits.max_pixels, 2**21)
    return str(min(padded, 2**31 - 1))


def _codec_name(stream: VideoStream) -> str:
    context = stream.codec_context
    # PyAV has no context for a codec that its FFmpeg cannot decode, whatever its stubs say
    return "unknown" if context is None else context.codec.canonical_name


def check_picture(width: int, height: int, limits: MediaLimits) -> None:
    """Refuse a picture of more pixels than allowed, or of a strange shape."""
    if width * height > limits.max_pixels:
        raise PictureTooLargeError(
            f"A picture of {width} x {height} pixels is larger than {limits.max_pixels} pixels;"
            " scale the clip down."
        )
    check_shape(width, height)


def check_shape(width: float | Fraction, height: float) -> None:
    """Refuse a picture so narrow, as it is shown, that resizing would blow it up."""
    if max(width, height) > MAX_ASPECT * max(1, min(width, height)):
        raise PictureTooLargeError(
            f"A picture of {float(width):g} x {height} pixels is more than {MAX_ASPECT} times as"
            " long as it is wide; crop the clip."
        )


def check_frames(count: int, limits: MediaLimits) -> None:
    """Refuse a clip of more frames than the decoder walks."""
    if count > limits.max_frames:
        raise TooManyFramesError(
            f"The clip has {count} or more frames, {limits.max_frames} are allowed;"
            " cut it or lower its frame rate."
        )


def check_duration(duration_s: float, limits: MediaLimits) -> None:
    """Refuse a clip that lasts too long."""
    if duration_s > limits.max_duration_s:
        raise ClipTooLongError(
            f"The clip lasts {duration_s:.2f} s, {limits.max_duration_s:g} s are allowed; cut it."
        )
