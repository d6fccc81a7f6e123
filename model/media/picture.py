"""One picture -> one square of pixels: the only resize, crop and rotation of the project.

The short side is resized to `size` by swscale (bicubic, widened when shrinking), then the centre
is cropped, then the display matrix applied: mirrored or turned by multiples of 90 degrees, other
angles to the nearest. Pixels count as square: a sample aspect ratio in the headers is ignored.
"""

import struct
from typing import Any, cast

import av
import numpy as np
from av.sidedata.sidedata import Type
from av.video.reformatter import Interpolation, VideoReformatter

from model.media.container import check_picture
from model.media.sampling import MediaLimits

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
    a, b, c, d = _display_matrix(frame)
    if abs(a) + abs(d) < abs(b) + abs(c):
        turned, flip_x, flip_y = pixels_HWC.swapaxes(0, 1), c < 0, b < 0
    else:
        turned, flip_x, flip_y = pixels_HWC, a < 0, d < 0
    turned = turned[:: -1 if flip_y else 1, :: -1 if flip_x else 1]
    return np.ascontiguousarray(turned)


def _display_matrix(frame: av.VideoFrame) -> tuple[int, int, int, int]:
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
