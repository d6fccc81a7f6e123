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
from model.media.container import MediaLimits, library_errors, open_video
from model.media.headers import header_of
from model.media.pictures import display_matrix, square
from model.media.video import Chooser, Decoded, decode_video

LEAST_FRAMES = 300  # of a shorter video decord leaves out too few frames to be faster
CODEC = "h264"
UPRIGHT = (1, 0, 0, 1)
ROUNDING_S = 2e-3  # between two libraries' times of one frame


def reader_name() -> str:
    """Name what `decode_local` reads long videos with, for what is kept of its pixels."""
    return f"decord {version('decord')}" if importlib.util.find_spec("decord") else "pyav"


def decode_local(data: bytes, choose: Chooser, size: int, limits: MediaLimits) -> Decoded:
    """Decode a trusted video: a `model.media.video.Decoder` for `read_clip`.

    Raises:
        ClipError: One of its children, when the clip cannot be used.
    """
    if importlib.util.find_spec("decord"):
        decoded = decode_with_decord(data, choose, size, limits, least_frames=LEAST_FRAMES)
        if decoded is not None:
            return decoded
    return decode_video(data, choose, size, limits)


def decode_with_decord(
    data: bytes, choose: Chooser, size: int, limits: MediaLimits, *, least_frames: int = 1
) -> Decoded | None:
    """Decode the chosen frames with decord.

    Returns:
        None where PyAV has to read the video: it is shorter than `least_frames`, turned, mirrored,
        interlaced, not 8-bit 4:2:0 H.264, has key frames that do not start afresh, or the two
        libraries disagree about its frames.
    """
    try:
        with open_video(data, limits) as video:
            if video.codec != CODEC or 0 < video.stream.frames < least_frames:
                return None
            found = header_of(video, limits).timeline
        if len(found.times_s) < least_frames or not _is_exact(data, limits):
            return None
        with open_video(data, limits) as video, library_errors("decoding the first frame"):
            first = next(video.container.decode(video.stream))
    except (ClipError, StopIteration):
        return None  # PyAV's own reading says what is wrong
    if not _is_plain(first):
        return None
    wanted = sorted(set(choose(found)))
    pixels_NHWC = _frames_of_decord(data, wanted, found.times_s)
    if pixels_NHWC is None or pixels_NHWC.shape[1:3] != (first.height, first.width):
        return None
    reformatter = VideoReformatter()
    squares = {}
    for index, pixels_HWC in zip(wanted, pixels_NHWC, strict=True):
        frame = av.VideoFrame.from_ndarray(pixels_HWC, "rgb24")
        squares[index] = square(frame, size, limits, reformatter)
    return Decoded(found, CODEC, squares)


def _is_exact(data: bytes, limits: MediaLimits) -> bool:
    """Whether decord finds the right frame after going to any key frame.

    It does where each is an IDR picture, which no later frame looks behind. Of others (open groups
    of pictures, intra refresh, HEVC's) decord 0.6 gives wrong frames without a word.
    """
    with open_video(data, limits) as video:
        form = video.stream.codec_context.extradata or b""
        if len(form) < 5 or form[0] != 1:  # avcC: units of a packet have their length before them
            return False
        with library_errors("reading the key frames"):
            return all(
                _is_idr(bytes(packet), length_bytes=(form[4] & 3) + 1)
                for packet in video.container.demux(video.stream)
                if packet.is_keyframe and packet.size
            )


def _is_idr(packet: bytes, length_bytes: int) -> bool:
    """Whether a packet of H.264 holds an IDR slice, unit type 5."""
    at = 0
    while at + length_bytes < len(packet):
        size = int.from_bytes(packet[at : at + length_bytes])
        if packet[at + length_bytes] & 31 == 5:
            return True
        at += length_bytes + size
    return False


def _is_plain(frame: av.VideoFrame) -> bool:
    plain = frame.format.name == "yuv420p" and not frame.interlaced_frame
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
