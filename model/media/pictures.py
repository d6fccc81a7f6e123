"""Pictures: every frame made a square of pixels, and clips given as pictures.

The one resize, crop and rotation of the project: the short side is resized to `size` by swscale
(bicubic, widened when shrinking), then the centre is cropped, then the display matrix applied:
mirrored or turned by multiples of 90 degrees, other angles to the nearest. Pixels count as square:
a sample aspect ratio in the headers is ignored.

Pillow is given JPEG and PNG alone; sizes are read from the header and checked before any pixel is
decoded, and Pillow has the last word on what is damaged or unusual. Pictures carry no clock, so a
picture's number stands for its time in seconds.

Dimensions: T sampled frames, H = W = size, C = 3 channels (RGB).
"""

import io
import struct
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, cast

import av
import numpy as np
from av.sidedata.sidedata import Type
from av.video.reformatter import Interpolation, VideoReformatter
from PIL import ExifTags, Image, ImageOps
from simplejpeg import decode_jpeg, decode_jpeg_header

from model.errors import ClipTooLargeError, PictureCountError, PictureTooLargeError
from model.media.container import MediaLimits, check_picture, library_errors
from model.media.sampling import Clip, centre_indices

UNTRUSTED_FORMATS = ("JPEG", "PNG")
RESAMPLING = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT


def scaled(width: int, height: int, size: int) -> tuple[int, int]:
    """Give width and height after the short side became `size`."""
    short = min(width, height)
    return max(size, round(width * size / short)), max(size, round(height * size / short))


def centre_crop(pixels_HWC: np.ndarray, size: int) -> np.ndarray:
    """Cut the central `size` x `size` pixels; works on a stack of frames, too."""
    height, width = pixels_HWC.shape[-3:-1]
    top, left = (height - size) // 2, (width - size) // 2
    return pixels_HWC[..., top : top + size, left : left + size, :]


def square(
    frame: av.VideoFrame, size: int, limits: MediaLimits, reformatter: VideoReformatter
) -> np.ndarray:
    """Turn a decoded frame into upright RGB pixels [size, size, 3], uint8."""
    check_picture(frame.width, frame.height, limits)
    width, height = scaled(frame.width, frame.height, size)
    small = reformatter.reformat(frame, width, height, "rgb24", interpolation=RESAMPLING, threads=1)
    return upright(centre_crop(small.to_ndarray(), size), frame)


def upright(pixels_HWC: np.ndarray, frame: av.VideoFrame) -> np.ndarray:
    """Apply the frame's display matrix to its pixels."""
    a, b, c, d = display_matrix(frame)
    if abs(a) + abs(d) < abs(b) + abs(c):
        turned, flip_x, flip_y = pixels_HWC.swapaxes(0, 1), c < 0, b < 0
    else:
        turned, flip_x, flip_y = pixels_HWC, a < 0, d < 0
    turned = turned[:: -1 if flip_y else 1, :: -1 if flip_x else 1]
    return np.ascontiguousarray(turned)


def display_matrix(frame: av.VideoFrame) -> tuple[int, int, int, int]:
    """Read a, b, c, d of the display matrix: pixel (p, q) is shown at (a p + c q, b p + d q)."""
    try:
        for side in cast(Any, frame.side_data):
            if side.type is Type.DISPLAYMATRIX and side.buffer_size >= 36:
                a, b, _, c, d = struct.unpack_from("=5i", bytes(side))
                return a, b, c, d
    except ValueError:  # PyAV does not know some newer kind of side data and lists none
        quarter_turns = round(frame.rotation / 90) % 4
        return ((1, 0, 0, 1), (0, -1, 1, 0), (-1, 0, 0, -1), (0, 1, -1, 0))[quarter_turns]
    return 1, 0, 0, 1


def read_pictures(
    pictures: Sequence[bytes], *, frames: int, size: int, limits: MediaLimits
) -> Clip:
    """Read a clip given as JPEG or PNG pictures, in their order; EXIF orientation is honoured.

    Every picture's header is checked; the sampled ones alone are decoded.

    Raises:
        ClipError: One of its children, when the pictures cannot be used.
    """
    count = len(pictures)
    if not limits.min_pictures <= count <= limits.max_pictures:
        raise PictureCountError(
            f"The clip has {count} pictures, {limits.min_pictures} to {limits.max_pictures}"
            " are allowed; send that many."
        )
    length = sum(map(len, pictures))
    if length > limits.max_bytes:
        raise ClipTooLargeError(
            f"The pictures have {length} bytes together, {limits.max_bytes} are allowed;"
            " send smaller ones."
        )
    picked = centre_indices(count, frames)
    squares: dict[int, np.ndarray] = {}
    for number, encoded in enumerate(pictures):
        with _opened(encoded, number, limits) as image:
            if number in picked:
                squares[number] = _square(_upright(image, encoded), size, limits)
    return Clip(
        frames_THWC=np.stack([squares[k] for k in picked]),
        times_s=tuple(float(k) for k in picked),
        duration_s=float(count),
        codec="pictures",
        distinct=len(set(picked)),
    )


def _upright(image: Image.Image, encoded: bytes) -> np.ndarray:
    """Decode an opened picture to RGB; most JPEGs by libjpeg-turbo itself: same pixels, sooner."""
    plain = (
        image.format == "JPEG" and image.mode == "RGB"
    )  # a PNG's EXIF may stand behind its pixels
    if plain and image.getexif().get(ExifTags.Base.Orientation, 1) == 1:
        with suppress(ValueError):  # of what is damaged
            if decode_jpeg_header(encoded)[:2] == (image.height, image.width):
                return decode_jpeg(encoded, "RGB")
    ImageOps.exif_transpose(image, in_place=True)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _square(pixels_HWC: np.ndarray, size: int, limits: MediaLimits) -> np.ndarray:
    """Resize and crop; pixels that are a square of the size already stay what they are."""
    if pixels_HWC.shape[:2] == (size, size):
        return pixels_HWC
    frame = av.VideoFrame.from_ndarray(pixels_HWC, "rgb24")
    return square(frame, size, limits, VideoReformatter())


@contextmanager
def _opened(encoded: bytes, number: int, limits: MediaLimits) -> Iterator[Image.Image]:
    """Open one untrusted picture and check its size; nothing is decoded yet."""
    try:
        with library_errors(f"reading picture {number}"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of what the checks below refuse
            with Image.open(io.BytesIO(encoded), formats=UNTRUSTED_FORMATS) as image:
                check_picture(image.width, image.height, limits)
                yield image
    except Image.DecompressionBombError as error:
        raise PictureTooLargeError(
            f"Picture {number} is larger than {limits.max_pixels} pixels; scale it down."
        ) from error
