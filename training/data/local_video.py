"""Trusted local videos, decoded by decord where it is installed and has frames to leave out.

decord goes to the key frame before each chosen frame and decodes from there; PyAV, as
`model.media.video` drives it, decodes all frames. Frames are chosen and resized by `model.media`
either way. The decoded pictures are the same bit for bit, and what becomes of them is not: decord
gives RGB of the full size, which is then resized, where PyAV's frames are resized as they are (1.2
of 255 levels in the mean on J-HMDB, `tests/bench/figures/readers.md`). So views of training may be
read here, and never what is evaluated or served. Uploads never are: decord opens addresses that a
file names.
"""

import importlib.util
import io
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from model.errors import ClipError
from model.media.container import MediaLimits, OpenVideo, library_errors, open_video, sniff
from model.media.decoding import Decoded, decode_video
from model.media.display import Framing, display_matrix, square
from model.media.headers import Header
from model.media.tones import needs_toning

LEAST_FRAMES = 300  # of a shorter video decord leaves out too few frames to be faster
CODEC = "h264"
UPRIGHT = (1, 0, 0, 1)
ROUNDING_S = 2e-3  # between two libraries' times of one frame


def reader_name() -> str:
    """Name what `decode_local` reads long videos with, for what is kept of its pixels."""
    return f"decord {version('decord')}" if importlib.util.find_spec("decord") else "pyav"


def decode_local(
    data: bytes, header: Header, wanted: Sequence[int], framing: Framing, limits: MediaLimits
) -> Decoded:
    """Decode a trusted video: a `model.media.video.Decoder` for `read_clip`.

    Raises:
        ClipError: One of its children, when the clip cannot be used.
    """
    if importlib.util.find_spec("decord"):
        decoded = decode_with_decord(
            data, header, wanted, framing, limits, least_frames=LEAST_FRAMES
        )
        if decoded is not None:
            return decoded
    return decode_video(data, header, wanted, framing, limits)


def decode_with_decord(
    data: bytes,
    header: Header,
    wanted: Sequence[int],
    framing: Framing,
    limits: MediaLimits,
    *,
    least_frames: int = 1,
) -> Decoded | None:
    """Decode the wanted frames with decord.

    Returns:
        None where PyAV has to read the video: it is shorter than `least_frames`, turned, mirrored,
        interlaced, damaged, of pixels that are not square, not 8-bit 4:2:0 H.264, has key frames
        that do not start afresh, is a transport stream, in which nothing says where a frame is, or
        the two libraries disagree about its frames.
    """
    exact = header.codec == CODEC and header.timed and header.all_fresh and header.whole
    if not exact or len(header.stamps) < least_frames or sniff(data) == "ts":
        return None
    try:
        with open_video(data, limits) as video, library_errors("decoding the first frame"):
            first = next(video.container.decode(video.stream))
            if not _is_plain(first, video):
                return None
    except (ClipError, StopIteration):
        return None  # PyAV's own reading says what is wrong
    places = sorted(set(wanted))
    pixels_NHWC = _frames_of_decord(data, places, header.timeline.times_s)
    if pixels_NHWC is None or pixels_NHWC.shape[1:3] != (first.height, first.width):
        return None
    reformatter = VideoReformatter()
    squares = {}
    for place, pixels_HWC in zip(places, pixels_NHWC, strict=True):
        frame = av.VideoFrame.from_ndarray(pixels_HWC, "rgb24")
        squares[place] = square(frame, framing, limits, reformatter)
    return Decoded(squares, {place: place for place in places})


def _is_plain(frame: av.VideoFrame, video: OpenVideo) -> bool:
    plain = frame.format.name == "yuv420p" and not frame.interlaced_frame
    plain = plain and video.pixel_aspect == 1
    plain = plain and not needs_toning(frame.color_trc, frame.color_primaries)
    return plain and display_matrix(frame) == UPRIGHT


def _frames_of_decord(
    data: bytes, wanted: list[int], times_s: Sequence[float]
) -> np.ndarray | None:
    """Read frames as RGB uint8 [N, H, W, 3]."""
    decord: Any = importlib.import_module("decord")
    try:
        reader = decord.VideoReader(io.BytesIO(data), num_threads=1)
        starts_N = reader.get_frame_timestamp(range(len(reader)))[:, 0]
        if len(starts_N) != len(times_s):
            return None
        if np.abs(starts_N - starts_N[0] - times_s).max() > ROUNDING_S:
            return None
        return np.asarray(reader.get_batch(wanted).asnumpy())
    except (decord.DECORDError, IndexError, RuntimeError):
        return None
