"""What is kept of a clip: small, however noisy it is, and near to the frames."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from model.media.keeping import QUALITIES, decode_pictures, encode_pictures, most_bytes, strip_of

Pixels = NDArray[np.uint8]
BOUND = 200_000  # of 8 frames at 224 px: the design's figure


def uniform(size: int, frames: int = 8) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (frames, size, size, 3), np.uint8)


def black_and_white(size: int) -> Pixels:
    """Noise of the two extremes, which has the most energy that pixels can have."""
    return np.where(uniform(size)[..., :1] < 128, 0, 255).astype(np.uint8).repeat(3, axis=3)


def coloured(size: int) -> Pixels:
    """Squares of 2 x 2 pixels of extreme colours, so that halving the colours' size saves none."""
    blocks = np.where(uniform(-(-size // 2)) < 128, 0, 255).astype(np.uint8)
    return blocks.repeat(2, axis=1).repeat(2, axis=2)[:, :size, :size]


def scene(size: int) -> Pixels:
    """Smooth shades under a little noise, as a camera gives them."""
    rows, columns = np.mgrid[:size, :size] / size
    shades = [np.sin(7 * rows + k) + np.cos(5 * columns + 2 * k) for k in range(3)]
    smooth = 127 + 55 * np.stack(shades, axis=2)
    noise = np.random.default_rng(1).normal(0, 2, (8, size, size, 3))
    return (smooth + noise).clip(0, 255).astype(np.uint8)


def test_the_bound_is_that_of_the_design() -> None:
    assert most_bytes(8, 224) == BOUND


@pytest.mark.parametrize("make", [uniform, black_and_white, coloured, scene])
@pytest.mark.parametrize("size", [16, 30, 112, 224, 256])
def test_every_clip_fits_the_bound(make: Callable[[int], Pixels], size: int) -> None:
    pictures = encode_pictures(make(size))
    assert len(pictures) == 8
    assert sum(map(len, pictures)) <= most_bytes(8, size)
    restored = decode_pictures(pictures)
    assert restored.dtype == np.uint8
    assert restored.shape == (8, size, size, 3)


def test_a_scene_is_kept_at_the_best_quality_and_stays_near() -> None:
    frames_THWC = scene(224)
    pictures = encode_pictures(frames_THWC)
    assert sum(map(len, pictures)) < BOUND
    differences = decode_pictures(pictures).astype(int) - frames_THWC
    assert np.abs(differences).mean() < 3
    assert pictures == encode_pictures(frames_THWC)


def test_quality_falls_no_further_than_it_must() -> None:
    """Noise fills most of the room that it has."""
    held = sum(map(len, encode_pictures(uniform(224))))
    assert 0.6 * BOUND < held <= BOUND
    assert list(QUALITIES) == sorted(QUALITIES, reverse=True)


def test_turned_frames_are_taken_as_they_lie_in_memory() -> None:
    turned = scene(64)[:, ::-1, ::-1]
    assert encode_pictures(turned) == encode_pictures(np.ascontiguousarray(turned))


def test_pictures_of_older_stores_are_still_read() -> None:
    frames_THWC = uniform(56)
    stored = []
    for pixels_HWC in frames_THWC:
        buffer = io.BytesIO()
        Image.fromarray(pixels_HWC).save(buffer, format="PNG", compress_level=1)
        stored.append(buffer.getvalue())
    assert (decode_pictures(stored) == frames_THWC).all()


def test_a_strip_is_as_large_as_the_pictures_or_smaller_and_shows_the_same() -> None:
    pictures = encode_pictures(scene(224))
    strips = [strip_of(pictures, width) for width in (None, 300, 96)]
    whole, _, small = (Image.open(io.BytesIO(strip)) for strip in strips)
    assert (whole.size, small.size) == ((8 * 224, 224), (8 * 96, 96))
    assert strips[0] == strips[1]
    assert len(strips[2]) < len(strips[0]) / 6
    likewise = np.asarray(whole.resize(small.size), dtype=int)
    assert np.abs(likewise - np.asarray(small)).mean() < 4
