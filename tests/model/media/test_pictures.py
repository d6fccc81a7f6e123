"""Clips given as pictures, and sampled frames kept as pictures."""

import io
import struct
import warnings
import zlib

import av
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from simplejpeg import decode_jpeg

from model import errors
from model.media.container import MediaLimits
from model.media.display import Framing, square
from model.media.pictures import read_pictures
from model.media.sampling import Clip, centre_indices
from tests.videos import corner_frames, grey_frames, grey_level


def encoded(pixels: np.ndarray, kind: str = "PNG", orientation: int | None = None) -> bytes:
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, exif=exif)
    return buffer.getvalue()


def read(pictures: list[bytes], size: int = 32, **limits: object) -> Clip:
    return read_pictures(pictures, frames=8, size=size, limits=MediaLimits(**limits))


def bomb(width: int, height: int) -> bytes:
    """A valid PNG header that promises far more pixels than the file holds."""
    header = b"IHDR" + struct.pack("!IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack("!I", 13) + header + struct.pack("!I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack("!I", 0) + b"IDAT" + bytes(4)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("count", [8, 20, 32])
def test_pictures_are_sampled_by_the_same_rule(kind: str, count: int) -> None:
    clip = read([encoded(pixels, kind) for pixels in grey_frames(count)])
    picked = centre_indices(count, 8)
    levels = clip.frames_THWC.mean(axis=(1, 2, 3))
    assert levels == pytest.approx([grey_level(k, count) for k in picked], abs=2)
    assert clip.times_s == tuple(map(float, picked))
    assert (clip.codec, clip.duration_s, clip.distinct) == ("pictures", count, 8)


def test_picture_of_the_right_size_is_left_as_it_is() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    assert (read([encoded(pixels)] * 8, size=64).frames_THWC == pixels).all()


def test_exif_orientation_is_honoured() -> None:
    stored = corner_frames(1)[0]
    upright = np.rot90(stored, -1)  # orientation 6: shown turned clockwise
    clip = read([encoded(stored, "JPEG", orientation=6)] * 8, size=64)
    assert np.abs(clip.frames_THWC[0].astype(int) - upright).mean() < 5


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_other_pixel_modes_become_rgb(mode: str) -> None:
    buffer = io.BytesIO()
    kind = "JPEG" if mode == "CMYK" else "PNG"
    Image.new("RGB", (40, 40), "white").convert(mode).save(buffer, kind)
    assert read([buffer.getvalue()] * 8).frames_THWC.mean() > 250


@pytest.mark.parametrize("count", [0, 1, 7, 33])
def test_too_few_or_too_many_pictures_are_refused(count: int) -> None:
    with pytest.raises(errors.PictureCountError, match=f"{count} pictures, 8 to 32"):
        read([encoded(grey_frames(1)[0])] * count)


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "WEBP", "PPM"])
def test_other_formats_are_refused(kind: str) -> None:
    with pytest.raises(errors.ClipUndecodableError):
        read([encoded(grey_frames(1)[0], kind)] * 8)


@pytest.mark.parametrize(("width", "height"), [(7000, 6000), (12000, 12000), (60000, 60000)])
def test_bomb_is_refused_by_its_header(width: int, height: int) -> None:
    with pytest.raises(errors.PictureTooLargeError):
        read([bomb(width, height)] * 8)


def test_bomb_among_pictures_that_are_not_sampled_is_refused() -> None:
    pictures = [encoded(grey_frames(1)[0])] * 32
    pictures[0] = bomb(60000, 60000)
    with pytest.raises(errors.PictureTooLargeError):
        read(pictures)


def test_too_many_bytes_together_are_refused() -> None:
    picture = encoded(grey_frames(1)[0])
    with pytest.raises(errors.ClipTooLargeError, match="bytes together"):
        read([picture] * 8, max_bytes=8 * len(picture) - 1)


def test_truncated_picture_is_refused() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    for kind in ("PNG", "JPEG"):
        with pytest.raises(errors.ClipUndecodableError):
            read([encoded(noise, kind)[:-500]] * 8)


NOISE = np.random.default_rng(1).integers(0, 255, (24, 24, 3), np.uint8)
WHOLE = {kind: encoded(NOISE, kind, orientation=6) for kind in ("PNG", "JPEG")}


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["PNG", "JPEG"]),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=12),
    st.floats(0.2, 1),
)
def test_damaged_picture_is_a_clip_or_a_refusal(
    kind: str, changes: list[tuple[float, int]], kept: float
) -> None:
    data = bytearray(WHOLE[kind])
    for where, value in changes:
        data[int(where * len(data))] = value
    try:
        clip = read([bytes(data[: int(kept * len(data))])] * 8)
    except errors.ClipError:
        return
    assert clip.frames_THWC.shape == (8, 32, 32, 3)


def by_pillow(picture: bytes) -> np.ndarray | None:
    """What Pillow makes of a JPEG; None where that is an error."""
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            Image.open(io.BytesIO(picture), formats=["JPEG"]) as image,
        ):
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, SyntaxError):
        return None


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 70),
    st.integers(30, 100),
    st.sampled_from(["4:4:4", "4:2:2", "4:2:0"]),
    st.booleans(),
    st.sampled_from(["RGB", "L"]),
)
def test_a_jpeg_has_the_pixels_that_pillow_gives_it(
    side: int, quality: int, subsampling: str, progressive: bool, mode: str
) -> None:
    pixels = np.random.default_rng(side).integers(0, 255, (side, side, 3), np.uint8)
    options = {"quality": quality, "subsampling": subsampling, "progressive": progressive}
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, "JPEG", **options)
    clip = read([buffer.getvalue()] * 8, size=side)
    assert np.array_equal(clip.frames_THWC[0], by_pillow(buffer.getvalue()))


def test_upright_jpegs_alone_take_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    short_ways = []

    def seen(encoded: bytes, colours: str) -> np.ndarray:
        short_ways.append(colours)
        return decode_jpeg(encoded, colours)

    monkeypatch.setattr("model.media.pictures.decode_jpeg", seen)
    for picture in (encoded(NOISE), WHOLE["JPEG"]):  # PNG; turned
        read([picture] * 8)
    assert not short_ways
    read([encoded(NOISE, "JPEG")] * 8)
    assert short_ways == ["RGB"] * 8


UPRIGHT = encoded(NOISE, "JPEG")


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4),
    st.floats(0.5, 1),
)
def test_a_damaged_jpeg_is_what_pillow_makes_of_it(
    changes: list[tuple[float, int]], kept: float
) -> None:
    data = bytearray(UPRIGHT)
    for where, value in changes:
        data[int(where * len(data))] = value
    picture = bytes(data[: int(kept * len(data))])
    expected = by_pillow(picture)
    try:
        clip = read([picture] * 8, size=24)
    except errors.ClipError:
        assert expected is None or expected.shape != NOISE.shape
        return
    assert expected is not None
    if expected.shape == NOISE.shape:
        assert np.array_equal(clip.frames_THWC[0], expected)


def test_a_square_of_the_size_is_taken_as_it_is() -> None:
    """Skipping the resize must not change a pixel."""
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
    frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
    resized = square(frame, Framing(32), MediaLimits(), VideoReformatter())
    clip = read([encoded(pixels)] * 8)
    assert (clip.frames_THWC[0] == pixels).all()
    assert (resized == pixels).all()
