"""A long video gives at each window the pictures that a clip of that time gives, decoded once."""

import io
import itertools
from collections.abc import Sequence

import numpy as np
import pytest

from model.errors import (
    ClipError,
    ClipTooLongError,
    ClipTooShortError,
    ClipUndecodableError,
    ContainerNotAllowedError,
    NoVideoStreamError,
    TooManyFramesError,
)
from model.media.container import MediaLimits, open_video
from model.media.display import Framing
from model.media.stream import PictureStream, StreamEnd
from model.media.video import read_clip
from model.media.windows import WindowGrid
from tests.videos import grey_frames, make_audio, make_video

LIMITS = MediaLimits(max_duration_s=20)
GRID = WindowGrid.of(8, 1.2, 0.3)
FRAMES = [*grey_frames(45), *reversed(grey_frames(45))]
CUT = {"g": "15"}  # a key frame every half second


def follow(
    video: bytes,
    limits: MediaLimits = LIMITS,
    grid: WindowGrid = GRID,
    squash: int | None = None,
) -> tuple[dict[int, np.ndarray], StreamEnd]:
    with open_video(io.BytesIO(video), limits) as opened:
        stream = PictureStream(opened, grid, Framing(32, squash), limits)
        shown = dict(itertools.chain.from_iterable(stream.steps()))
    assert stream.end is not None
    return shown, stream.end


@pytest.mark.parametrize(
    ("codec", "container", "squash"),
    [
        *(("libx264", "mp4", 37), ("libx264", "mpegts", None), ("libvpx", "webm", None)),
        *(("mpeg4", "avi", None), ("libx264", "avi", None), ("mpeg2video", "mpegts", None)),
    ],
)
def test_windows_show_what_clips_of_their_time_do(
    codec: str, container: str, squash: int | None
) -> None:
    video = make_video(FRAMES, codec=codec, container=container)
    shown, end = follow(video, squash=squash)
    assert end.duration_s == pytest.approx(3, abs=0.1)
    assert end.warnings == ()
    differing = 0
    for window in range(GRID.count(2.9)):
        span = {"start_s": GRID.start_s(window), "end_s": GRID.start_s(window) + GRID.window_s}
        clip = read_clip(video, frames=8, size=32, squash=squash, limits=LIMITS, **span)
        pictures = np.stack([shown[number] for number in GRID.instants_of(window)])
        differing += int((pictures != clip.frames_THWC).any(axis=(1, 2, 3)).sum())
    assert differing <= (0 if container == "mp4" else 3)  # containers round times


def test_a_rare_picture_is_the_only_one_kept() -> None:
    sparse = WindowGrid.of(2, 0.2, 1.0)
    shown, _ = follow(make_video(FRAMES), grid=sparse)
    assert sorted(shown) == [0, 1, 10, 11, 20, 21]


def damaged(first: int, last: int, container: str = "mpegts") -> bytes:
    """Fill packets with noise, all but their heads."""
    rng = np.random.default_rng(3)

    def edit(number: int, data: bytes) -> bytes:
        noise = rng.integers(1, 255, max(0, len(data) - 5), np.uint8)
        return data[:5] + noise.tobytes() if first <= number < last else data

    return make_video(FRAMES, container=container, options=CUT, edit=edit)


def test_a_video_that_breaks_off_is_used_up_to_there() -> None:
    shown, end = follow(damaged(45, 90))
    assert 1.2 <= end.duration_s <= 2
    assert "not whole" in " ".join(end.warnings)
    assert max(GRID.instant_s(number) for number in shown) < end.duration_s


def test_a_file_that_is_cut_is_used_up_to_there() -> None:
    whole = make_video(FRAMES, codec="libvpx", container="webm")
    shown, end = follow(whole[: len(whole) // 2])
    assert 0.3 < end.duration_s < 2.5
    assert "can be decoded up to" in " ".join(end.warnings)
    assert shown


def test_damage_in_the_middle_is_passed_over() -> None:
    _, end = follow(damaged(30, 45))
    assert end.duration_s == pytest.approx(3, abs=0.1)
    assert "not whole" in " ".join(end.warnings)


REFUSED: Sequence[tuple[str, bytes, MediaLimits, type[ClipError]]] = [
    ("too long", make_video(FRAMES), MediaLimits(max_duration_s=2), ClipTooLongError),
    ("too many", make_video(FRAMES), MediaLimits(max_frames=50), TooManyFramesError),
    ("one picture", make_video(FRAMES[:1]), LIMITS, ClipTooShortError),
    ("sound alone", make_audio(), LIMITS, NoVideoStreamError),
    ("a still", b"\x89PNG\r\n\x1a\n" + bytes(50), LIMITS, ContainerNotAllowedError),
    ("noise", damaged(0, 90), LIMITS, ClipError),
    ("nothing", b"", LIMITS, ClipUndecodableError),
]


@pytest.mark.parametrize(
    ("video", "limits", "error"), [each[1:] for each in REFUSED], ids=[each[0] for each in REFUSED]
)
def test_what_is_no_video_is_refused(
    video: bytes, limits: MediaLimits, error: type[ClipError]
) -> None:
    with pytest.raises(error):
        follow(video, limits)


def test_a_length_that_headers_hide_is_noticed_on_the_way() -> None:
    """A raw transport stream says nothing of its length."""
    video = make_video(FRAMES, codec="mpeg2video", container="mpegts")
    with pytest.raises(ClipTooLongError):
        follow(video, MediaLimits(max_duration_s=2))
