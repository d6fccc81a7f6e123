"""Clips given as pictures.

Pillow is given JPEG and PNG alone; sizes are read from the header and checked before any pixel is
decoded, and Pillow has the last word on what is damaged or unusual. What is transparent is laid
over black, as in videos. Pictures carry no clock, so a picture's number stands for its time in
seconds.

Dimensions: T sampled frames, H = W = size, C = 3 channels (RGB).
"""

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from PIL import ExifTags, Image, ImageOps
from simplejpeg import decode_jpeg, decode_jpeg_header

from model.errors import ClipTooLargeError, PictureCountError, PictureTooLargeError
from model.media.container import MediaLimits, check_picture, library_errors
from model.media.display import Framing, square
from model.media.sampling import Clip, centre_indices

UNTRUSTED_FORMATS = ("JPEG", "PNG")


def read_pictures(
    pictures: Sequence[bytes],
    *,
    frames: int,
    size: int,
    limits: MediaLimits,
    squash: int | None = None,
) -> Clip:
    """Read a clip given as JPEG or PNG pictures, in their order; EXIF orientation is honoured.

    Every picture's header is checked; the sampled ones alone are decoded. Pictures that are squares
    of the size already stay as they are, squashed ones too: they may be what was kept of a clip.

    Raises:
        ClipError: One of its children, when the pictures cannot be used.
    """
    count = len(pictures)
    check_pictures(pictures, limits)
    picked, framing = centre_indices(count, frames), Framing(size, squash)
    squares: dict[int, np.ndarray] = {}
    for number in dict.fromkeys(picked):
        with _opened(pictures[number], number, limits) as image:
            squares[number] = _square(_upright(image, pictures[number]), framing, limits)
    return Clip(
        frames_THWC=np.stack([squares[k] for k in picked]),
        times_s=tuple(float(k) for k in picked),
        duration_s=float(count),
        codec="pictures",
        distinct=len(set(picked)),
    )


def check_pictures(pictures: Sequence[bytes], limits: MediaLimits) -> None:
    """Refuse pictures that their number, length or headers give away, without decoding.

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
    for number, encoded in enumerate(pictures):
        with _opened(encoded, number, limits):
            pass


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
    if image.has_transparency_data:
        black = Image.new("RGBA", image.size, "black")
        return np.asarray(Image.alpha_composite(black, image.convert("RGBA")).convert("RGB"))
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _square(pixels_HWC: np.ndarray, framing: Framing, limits: MediaLimits) -> np.ndarray:
    """Resize and crop; pixels that are a square of the size already stay what they are."""
    if pixels_HWC.shape[:2] == (framing.size, framing.size):
        return pixels_HWC
    frame = av.VideoFrame.from_ndarray(pixels_HWC, "rgb24")
    return square(frame, framing, limits, VideoReformatter())


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
