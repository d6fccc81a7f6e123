"""A decoded frame as a screen shows it: the one resize, crop and rotation of the project.

The short side becomes `size` by swscale (bicubic, widened when shrinking) with pixels made square,
or the whole frame is squashed to a square somewhat larger, for weights that learned from such; then
the centre is cropped, then the display matrix applied: mirrored or turned by multiples of 90
degrees, other angles to the nearest. Only frames that need it are deinterlaced (`bwdif`), toned
(`model.media.tones`), or laid over black, as video players do with what is transparent.

Dimensions: H = W = size, C = 3 channels (RGB).
"""

import struct
from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from typing import Any, NamedTuple, cast

import av
import numpy as np
from av.filter import Graph
from av.sidedata.sidedata import Type
from av.video.reformatter import Interpolation, VideoReformatter

from model.media.container import MediaLimits, check_picture, check_shape
from model.media.tones import needs_toning, toned

PARITY = {2: "tff", 3: "bff", 4: "bff", 5: "tff"}  # which field is shown first, by field order
RESAMPLING = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT


class Framing(NamedTuple):
    """How a frame becomes a square.

    Args:
        size: Height and width of the result, pixels.
        squash: Side that the whole frame is squashed to before the crop; None keeps its shape.
    """

    size: int
    squash: int | None = None

    def resized(self, width: Fraction, height: int) -> tuple[int, int]:
        """Give width and height before the crop."""
        if self.squash is not None:
            return self.squash, self.squash
        return scaled(round(width), height, self.size)


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
    frame: av.VideoFrame,
    framing: Framing,
    limits: MediaLimits,
    reformatter: VideoReformatter,
    pixel_aspect: Fraction = Fraction(1),
) -> np.ndarray:
    """Turn a decoded frame into upright RGB pixels [size, size, 3], uint8.

    Args:
        frame: As decoded, or deinterlaced.
        framing: Of the result.
        limits: What is accepted.
        reformatter: Resizes; one for all frames of a clip.
        pixel_aspect: Width of a pixel / its height.
    """
    check_picture(frame.width, frame.height, limits)
    check_shape(frame.width * pixel_aspect, frame.height)
    width, height = framing.resized(frame.width * pixel_aspect, frame.height)
    clear = _has_alpha(frame.format.name)
    toning = needs_toning(frame.color_trc, frame.color_primaries)
    form = ("rgba64le" if clear else "rgb48le") if clear or toning else "rgb24"
    small = reformatter.reformat(frame, width, height, form, interpolation=RESAMPLING, threads=1)
    pixels = centre_crop(small.to_ndarray(), framing.size)
    if clear or toning:
        pixels = _deep(pixels, frame.color_trc, frame.color_primaries, toning=toning)
    return upright(pixels, frame)


def _deep(pixels: np.ndarray, transfer: int, primaries: int, *, toning: bool) -> np.ndarray:
    """Make 16-bit RGB, or RGB with alpha, 8-bit RGB."""
    colours_HWC = pixels[..., :3]
    shown_HWC = toned(colours_HWC, transfer, primaries) if toning else colours_HWC / 257
    if pixels.shape[-1] == 4:
        shown_HWC = shown_HWC * (pixels[..., 3:] / 65535)
    return np.rint(shown_HWC).astype(np.uint8)


@cache
def _has_alpha(form: str) -> bool:
    return any(part.is_alpha for part in av.VideoFormat(form).components)


def deinterlaced(
    before: av.VideoFrame | None,
    frame: av.VideoFrame,
    after: av.VideoFrame | None,
    field_order: int = 0,
) -> av.VideoFrame:
    """Fill in the lines of a frame's second field, by its neighbours too if there are any."""
    graph = Graph()
    graph.threads = 1
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 25)
    )
    filling, sink = (
        graph.add("bwdif", f"mode=send_frame:parity={PARITY.get(field_order, 'auto')}"),
        graph.add("buffersink"),
    )
    graph.link_nodes(source, filling, sink).configure()
    given = [each for each in (before, frame, after) if _alike(each, frame)]
    shown: list[av.VideoFrame] = []
    for number, each in enumerate([*given, None]):
        if each is not None:
            each.pts, each.time_base = number, Fraction(1, 25)
        graph.vpush(each)
        shown += _pulled(graph)
    return shown[given.index(frame)]


def _alike(other: av.VideoFrame | None, frame: av.VideoFrame) -> bool:
    if other is None:
        return False
    size, form = (frame.width, frame.height), frame.format.name
    return (other.width, other.height) == size and other.format.name == form


def _pulled(graph: Graph) -> Sequence[av.VideoFrame]:
    shown: list[av.VideoFrame] = []
    while True:
        try:
            shown.append(graph.vpull())
        except (BlockingIOError, EOFError):
            return shown


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
