"""What is kept of a clip: its sampled frames as JPEG pictures, at most 200 KB at 224 px.

Whatever is computed from kept pictures is computed from `decode_pictures` of them, the first time
too, so that it comes out the same each time. libjpeg-turbo's accurate DCT gives the same pixels on
every processor.

Stores that are older than 2026-11-28 hold PNG pictures; they are still read.

Dimensions: T sampled frames, H = W pixels, C = 3 channels (RGB).
"""

import io
import itertools
from collections.abc import Sequence

import numpy as np
from PIL import Image
from simplejpeg import decode_jpeg, encode_jpeg

HEADER_BYTES = 1_000  # of one picture: tables and marks take 630, whatever it shows
PIXELS_BYTES = 24_000  # of one picture at 224 px, and in proportion to its pixels at other sizes
PIXELS = 224 * 224
# Of one clip the first that fits. The last fits every clip: its steps of 255 leave a block of
# 8 x 8 pixels at most 64 values of 3 bits, so 20 KB a picture at 224 px.
QUALITIES = (90, 80, 70, 60, 50, 40, 30, 20, 10, 1)
SMALL_QUALITY = 70  # of pictures made smaller, to be looked at alone
COLOURS = "420"  # one value of colour for 2 x 2 pixels, as nearly every video has it
PNG_MARK = b"\x89PNG"


def most_bytes(frames: int, size: int) -> int:
    """Return the bound of what is kept of a clip, bytes."""
    return frames * (HEADER_BYTES + PIXELS_BYTES * size * size // PIXELS)


def encode_pictures(frames_THWC: np.ndarray) -> tuple[bytes, ...]:
    """Encode sampled frames as JPEG, all with the best quality at which they fit the bound.

    Args:
        frames_THWC: uint8 RGB, H = W.

    Returns:
        T pictures of `most_bytes(T, H)` bytes together at most.
    """
    bound = most_bytes(*frames_THWC.shape[:2])
    for quality in QUALITIES:
        pictures = tuple(
            encode_jpeg(np.ascontiguousarray(pixels_HWC), quality=quality, colorsubsampling=COLOURS)
            for pixels_HWC in frames_THWC
        )
        if sum(map(len, pictures)) <= bound:
            break
    return pictures


def decode_pictures(pictures: Sequence[bytes]) -> np.ndarray:
    """Decode kept pictures: uint8 [T, H, W, 3]. For trusted bytes alone."""
    return np.stack([_decode(picture) for picture in pictures])


def motion_of(frames_THWC: np.ndarray) -> float:
    """Return by how much pictures differ from one to the next, on average, of 255."""
    if len(frames_THWC) < 2:
        return 0.0
    steps = [
        np.abs(one.astype(np.int16) - other).mean()
        for one, other in itertools.pairwise(frames_THWC)
    ]
    return float(np.mean(steps))


def strip_of(pictures: Sequence[bytes], width: int | None = None) -> bytes:
    """Return kept pictures side by side, as one JPEG. For trusted bytes alone.

    Args:
        pictures: At least one, all of one size.
        width: Of each, pixels, where they are larger; None leaves them as they are.
    """
    strip_HWC = np.concatenate([*decode_pictures(pictures)], axis=1)
    quality = QUALITIES[0]
    if width is not None and width < len(strip_HWC):
        size = width * len(pictures), width
        strip_HWC = np.asarray(Image.fromarray(strip_HWC).resize(size, Image.Resampling.BOX))
        quality = SMALL_QUALITY
    jpeg: bytes = encode_jpeg(np.ascontiguousarray(strip_HWC), quality=quality)
    return jpeg


def _decode(picture: bytes) -> np.ndarray:
    if picture.startswith(PNG_MARK):
        with Image.open(io.BytesIO(picture), formats=("PNG",)) as image:
            return np.asarray(image.convert("RGB"))
    return decode_jpeg(picture, "RGB")
