"""Trusted local videos: decord decodes the same frames as PyAV, or leaves the video to it."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter

from model.errors import ClipError
from model.media.container import UNLIMITED, open_video
from model.media.decoding import Decoded, decode_video
from model.media.display import Framing, square
from model.media.headers import Header, read_header
from model.media.sampling import Clip, spread_instants
from model.media.video import Decoder, read_clip
from tests.training.conftest import SHARED
from tests.videos import corner_frames, grey_frames, make_video
from training.data import local_video
from training.data.datasets import LabelledClip
from training.data.listings import VIDEOS
from training.data.local_video import LEAST_FRAMES, decode_local, decode_with_decord
from training.features.clip_views import read_frames

pytest.importorskip("decord")
SIZE = 224
LARGE_BYTES = 120_000  # of odd files: larger ones take a minute together
LONG = make_video(corner_frames(LEAST_FRAMES, width=96), options={"g": "16"})
PLAIN = {
    "h264-mp4": make_video(corner_frames(24, width=96)),
    "h264-mov": make_video(corner_frames(24, width=96), container="mov"),
    "h264-mkv": make_video(corner_frames(24), container="matroska"),
    "h264, many key frames": make_video(grey_frames(40), options={"g": "5"}),
}
LEFT_TO_PYAV = {
    "turned": make_video(corner_frames(12), rotation=90),
    "mirrored": make_video(corner_frames(12), matrix=[-65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30]),
    "vp8": make_video(grey_frames(12), codec="libvpx", container="webm"),
    "mpeg4": make_video(grey_frames(12), codec="mpeg4", container="avi"),
    "not square": make_video(corner_frames(12), pixel_aspect=Fraction(4, 3)),
    "open groups": make_video(
        grey_frames(60), options={"x264-params": "open-gop=1:bframes=3:keyint=12"}
    ),
    "intra refresh": make_video(
        grey_frames(60), options={"x264-params": "intra-refresh=1:keyint=12"}
    ),
    "hevc": make_video(
        corner_frames(24), codec="libx265", options={"x265-params": "log-level=none"}
    ),
    "transport stream": make_video(corner_frames(24, width=96), container="mpegts"),
    "cut off": PLAIN["h264-mp4"][:-2000],
    "no video": b"hello",
}


def eight(header: Header) -> list[int]:
    clip = header.timeline
    return clip.shown_at(spread_instants(0, clip.duration_s, [0.5] * 8))


def by_decord(data: bytes, header: Header) -> Decoded | None:
    return decode_with_decord(data, header, eight(header), Framing(SIZE), UNLIMITED)


def read(data: bytes, decode: Decoder) -> Clip:
    return read_clip(data, frames=8, size=SIZE, limits=UNLIMITED, decode=decode)


def by_full_rgb(data: bytes, wanted: Sequence[int]) -> dict[int, np.ndarray]:
    """PyAV's frames made RGB at their full size, as decord gives them, then resized by us."""
    squares = {}
    with open_video(data, UNLIMITED) as video:
        for index, frame in enumerate(video.container.decode(video.stream)):
            if index in wanted:
                pixels = VideoReformatter().reformat(frame, format="rgb24").to_ndarray()
                whole = av.VideoFrame.from_ndarray(pixels, "rgb24")
                squares[index] = square(whole, Framing(SIZE), UNLIMITED, VideoReformatter())
    return squares


def assert_decoded_alike(data: bytes) -> None:
    """The same frames as PyAV; bit for bit its pixels, up to the order of resizing."""
    header = read_header(data, UNLIMITED)
    theirs = by_decord(data, header)
    assert theirs is not None
    ours = decode_video(data, header, eight(header), Framing(SIZE), UNLIMITED)
    assert theirs.shown == ours.shown
    wanted = set(eight(header))
    expected = by_full_rgb(data, sorted(wanted))
    for index in wanted:
        assert np.array_equal(theirs.squares[index], expected[index])
        assert np.abs(theirs.squares[index].astype(int) - ours.squares[index]).mean() < 4


@pytest.mark.parametrize("kind", PLAIN)
def test_decord_decodes_what_pyav_decodes(kind: str) -> None:
    assert_decoded_alike(PLAIN[kind])


@pytest.mark.parametrize("kind", LEFT_TO_PYAV)
def test_what_decord_cannot_give_alike_is_left_to_pyav(kind: str) -> None:
    data = LEFT_TO_PYAV[kind]
    try:
        ours = read(data, decode_video)
    except ClipError as error:
        with pytest.raises(type(error)):
            read(data, decode_local)
        return
    assert by_decord(data, read_header(data, UNLIMITED)) is None
    theirs = read(data, decode_local)
    assert theirs.times_s == ours.times_s
    assert np.array_equal(theirs.frames_THWC, ours.frames_THWC)


@pytest.fixture
def decord_reads(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Notes each time that decord has read a video."""
    reads = []

    decode = local_video._frames_of_decord

    def seen(data: bytes, wanted: list[int], times_s: Sequence[float]) -> np.ndarray | None:
        reads.append(True)
        return decode(data, wanted, times_s)

    monkeypatch.setattr(local_video, "_frames_of_decord", seen)
    return reads


def test_long_videos_of_training_are_read_by_decord(
    tmp_path: Path, decord_reads: list[bool]
) -> None:
    (tmp_path / "clip.mp4").write_bytes(LONG)
    clip = LabelledClip(tmp_path / "clip.mp4", "x", "g")
    view = read_frames(clip, frames=8, size=32, rng=np.random.default_rng(0))
    assert decord_reads == [True]
    by_pyav = read_clip(
        LONG, frames=8, size=32, limits=UNLIMITED, jitter=np.random.default_rng(0)
    ).frames_THWC
    assert np.abs(view.astype(int) - by_pyav).mean() < 3


def test_what_is_evaluated_is_read_as_the_service_reads_it(
    tmp_path: Path, decord_reads: list[bool]
) -> None:
    (tmp_path / "clip.mp4").write_bytes(LONG)
    view = read_frames(LabelledClip(tmp_path / "clip.mp4", "x", "g"), frames=8, size=32)
    assert not decord_reads
    assert (view == read_clip(LONG, frames=8, size=32, limits=UNLIMITED).frames_THWC).all()


def test_short_videos_are_left_to_pyav(decord_reads: list[bool]) -> None:
    read(PLAIN["h264-mp4"], decode_local)
    assert not decord_reads


def test_without_decord_everything_is_read_by_pyav(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_video.importlib.util, "find_spec", lambda _: None)
    by_pyav = read(LONG, decode_video).frames_THWC
    assert np.array_equal(read(LONG, decode_local).frames_THWC, by_pyav)
    assert local_video.reader_name() == "pyav"


def is_read_by_decord(data: bytes) -> bool:
    try:
        return by_decord(data, read_header(data, UNLIMITED)) is not None
    except ClipError:
        return False


def real_videos(folder: str, step: int) -> list[Path]:
    found = sorted(p for p in (SHARED / folder).rglob("*") if p.suffix.lower() in VIDEOS)[::step]
    if not found:
        pytest.skip(f"no videos under {SHARED}/{folder}: set KSHOT_SHARED to compare real ones")
    return found


def test_real_clips_are_decoded_alike() -> None:
    for path in real_videos("data/jhmdb/clips", 60):
        assert_decoded_alike(path.read_bytes())


@pytest.mark.slow
def test_odd_files_are_decoded_alike_or_left_to_pyav() -> None:
    count = 0
    for path in real_videos("media/odd", 3):
        data = path.read_bytes()
        if len(data) < LARGE_BYTES and is_read_by_decord(data):
            count += 1
            assert_decoded_alike(data)
    assert count > 3
