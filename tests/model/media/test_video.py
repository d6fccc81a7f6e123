"""Videos of every accepted kind give the frames, times and orientation that they hold."""

import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from model.errors import ClipSpanError, ClipTooShortError
from model.media.container import UNLIMITED, MediaLimits
from model.media.display import centre_crop, scaled
from model.media.sampling import Clip, centre_indices
from model.media.video import read_clip
from tests.phone_videos import repacked
from tests.videos import corner_frames, grey_frames, grey_level, make_video

REPO = Path(__file__).parents[3]
LIMITS = MediaLimits()
KINDS = {
    "h264-mp4": ("libx264", "mp4", "h264", {}),
    "h264-mov": ("libx264", "mov", "h264", {}),
    "h264-mkv": ("libx264", "matroska", "h264", {}),
    "hevc-mp4": ("libx265", "mp4", "hevc", {"x265-params": "log-level=none"}),
    "vp8-webm": ("libvpx", "webm", "vp8", {}),
    "vp9-webm": ("libvpx-vp9", "webm", "vp9", {}),
    "av1-mp4": ("libsvtav1", "mp4", "av1", {"preset": "12"}),
    "mpeg4-avi": ("mpeg4", "avi", "mpeg4", {}),
    "mpeg4-mp4": ("mpeg4", "mp4", "mpeg4", {}),
    "h264-ts": ("libx264", "mpegts", "h264", {}),
    "hevc-ts": ("libx265", "mpegts", "hevc", {"x265-params": "log-level=none"}),
    "mpeg4-ts": ("mpeg4", "mpegts", "mpeg4", {}),
    "mpeg2-ts": ("mpeg2video", "mpegts", "mpeg2video", {}),
}


def read(video: bytes, size: int = 32, **options: object) -> Clip:
    return read_clip(video, **{"frames": 8, "size": size, "limits": LIMITS, **options})


def seen_levels(clip: Clip) -> list[float]:
    return clip.frames_THWC.mean(axis=(1, 2, 3)).tolist()


def ramp_frames(width: int, height: int) -> list[np.ndarray]:
    """Brighter to the right, by as much in any width."""
    row = np.linspace(0, 255, width).astype(np.uint8)
    return [np.broadcast_to(row[None, :, None], (height, width, 3)).copy()] * 8


@pytest.mark.parametrize(("width", "height"), [(128, 64), (64, 128), (64, 64)])
def test_a_squashed_clip_shows_whole_frames_but_for_the_crop(width: int, height: int) -> None:
    clip = read(make_video(ramp_frames(width, height)), squash=40)
    seen = (np.arange(4, 36) + 0.5) / 40 * 255
    assert clip.frames_THWC.shape == (8, 32, 32, 3)
    assert np.abs(clip.frames_THWC.mean(axis=(0, 1, 3)) - seen).max() < 6
    whole = read(make_video(ramp_frames(width, height)))
    assert np.abs(whole.frames_THWC.mean(axis=(0, 1, 3)) - seen).max() > 20


@pytest.mark.parametrize("kind", KINDS)
def test_every_accepted_kind_gives_the_centre_frames_and_their_times(kind: str) -> None:
    encoder, container, codec, options = KINDS[kind]
    clip = read(make_video(grey_frames(24), codec=encoder, container=container, options=options))
    indices = centre_indices(24, 8)
    assert clip.codec == codec
    assert clip.frames_THWC.shape == (8, 32, 32, 3)
    assert clip.frames_THWC.dtype == np.uint8
    assert seen_levels(clip) == pytest.approx([grey_level(k, 24) for k in indices], abs=3)
    assert clip.times_s == pytest.approx([k / 30 for k in indices], abs=2e-3)
    assert clip.duration_s == pytest.approx(0.8, abs=2e-3)
    assert clip.distinct == 8
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_fragmented_mp4_is_read() -> None:
    fragmented = {"movflags": "frag_keyframe+empty_moov"}
    video = make_video(grey_frames(24), container_options=fragmented)
    assert seen_levels(read(video)) == seen_levels(read(make_video(grey_frames(24))))


def test_mp4_that_starts_with_its_pictures_is_read() -> None:
    video = make_video(grey_frames(24))
    head = int.from_bytes(video[:4])
    assert video[4:8] == b"ftyp"
    free = head.to_bytes(4) + b"free" + bytes(head - 8)  # same length: offsets stay true
    assert seen_levels(read(free + video[head:])) == seen_levels(read(video))


def test_short_clip_repeats_frames_and_says_so() -> None:
    clip = read(make_video(grey_frames(3), rate=10))
    assert clip.distinct == 3
    assert seen_levels(clip) == pytest.approx([20, 20, 20, 120, 120, 220, 220, 220], abs=3)
    assert clip.times_s == pytest.approx([0, 0, 0, 0.1, 0.1, 0.2, 0.2, 0.2])


def test_packets_that_show_no_frame_do_not_shift_the_sampling() -> None:
    """Every third VP8 frame is made invisible, so packets and frames differ in number."""

    def hide(k: int, data: bytes) -> bytes:
        return bytes([data[0] & ~0x10]) + data[1:] if k % 3 == 2 else data

    frames = grey_frames(36)
    clip = read(make_video(frames, codec="libvpx", container="webm", edit=hide))
    at = centre_indices(36, 8)
    expected = [k - 1 if k % 3 == 2 else k for k in at]
    assert seen_levels(clip) == pytest.approx([grey_level(k, 36) for k in expected], abs=3)
    assert clip.times_s == pytest.approx([k / 30 for k in expected], abs=2e-3)


def test_an_avi_whose_pictures_are_coded_out_of_order_is_read_in_order() -> None:
    options = {"bf": "3", "g": "12", "sc_threshold": "0", "b_strategy": "0"}
    clip = read(make_video(grey_frames(36), container="avi", options=options))
    at = centre_indices(36, 8)
    assert seen_levels(clip) == pytest.approx([grey_level(k, 36) for k in at], abs=3)
    assert clip.times_s == pytest.approx([k / 30 for k in at], abs=2e-3)
    assert clip.warnings == ()


def test_pictures_of_the_same_time_are_read() -> None:
    def sooner(number: int, packet: av.Packet) -> av.Packet:
        packet.pts -= number % 3 == 2
        packet.dts = packet.pts
        return packet

    plain = make_video(grey_frames(24), container="matroska", rate=1000, options={"bf": "0"})
    video = repacked(plain, sooner, "matroska")  # a tick is as long as a frame: times look even
    clip = read(video, frames=24, limits=UNLIMITED)
    assert clip.distinct == 16
    assert seen_levels(clip) == sorted(seen_levels(clip))


def test_jitter_is_reproducible_and_moves_frames() -> None:
    video = make_video(grey_frames(60))
    once, again = (read(video, jitter=np.random.default_rng(7)).times_s for _ in range(2))
    assert once == again
    assert once != read(video).times_s


def test_span_samples_its_own_frames_alone() -> None:
    clip = read(make_video(grey_frames(30)), start_s=0.2, end_s=0.6)
    expected = [6 + k for k in centre_indices(12, 8)]
    assert clip.times_s == pytest.approx([k / 30 for k in expected])
    assert seen_levels(clip) == pytest.approx([grey_level(k, 30) for k in expected], abs=4)
    assert clip.duration_s == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("start_s", "end_s"),
    [(-0.1, 0.5), (0.5, 0.5), (0.6, 0.4), (1.5, None), (0.2, 3.0), (float("nan"), None)],
)
def test_span_outside_the_clip_is_refused(start_s: float, end_s: float | None) -> None:
    with pytest.raises(ClipSpanError, match=r"span from .*;"):
        read(make_video(grey_frames(30)), start_s=start_s, end_s=end_s)


def test_a_span_without_an_end_goes_to_the_end() -> None:
    with pytest.raises(ClipSpanError, match=r"span from 9 s to the end does not"):
        read(make_video(grey_frames(10)), start_s=9.0)


def test_span_shorter_than_the_least_duration_is_refused() -> None:
    with pytest.raises(ClipTooShortError, match=r"0\.1"):
        read(make_video(grey_frames(30)), start_s=0.5, end_s=0.6)


@pytest.mark.parametrize("quarter_turns", [0, 1, 2, 3])
def test_rotation_is_honoured(quarter_turns: int) -> None:
    video = make_video(corner_frames(10), rotation=90 * quarter_turns)
    upright = np.rot90(corner_frames(1)[0], quarter_turns)
    assert np.abs(read(video, size=64).frames_THWC[0].astype(int) - upright).mean() < 5


def test_rotation_turns_a_wide_clip_without_squeezing_it() -> None:
    wide = corner_frames(10, width=128)
    turned = read(make_video(wide, rotation=90), size=64).frames_THWC[0].astype(int)
    crop = np.rot90(wide[0][:, 32:96])
    assert np.abs(turned - crop).mean() < 6


def test_mirroring_is_honoured() -> None:
    flip_x = [-65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30]
    video = make_video(corner_frames(10), matrix=flip_x)
    mirrored = corner_frames(1)[0][:, ::-1]
    assert np.abs(read(video, size=64).frames_THWC[0].astype(int) - mirrored).mean() < 5


@pytest.mark.parametrize(("width", "height"), [(64, 48), (48, 64), (50, 200), (16, 16), (322, 242)])
def test_short_side_becomes_the_size_and_the_centre_is_kept(width: int, height: int) -> None:
    assert min(scaled(width, height, 224)) == 224
    clip = read(make_video(corner_frames(10, width, height)), size=224)
    pixels = clip.frames_THWC[0].astype(int)
    assert pixels.shape == (224, 224, 3)
    for row, column, colour in [
        (0, 0, (255, 0, 0)),
        (0, 1, (0, 255, 0)),
        (1, 0, (0, 0, 255)),
        (1, 1, (255, 255, 255)),
    ]:
        corner = pixels[20 + 164 * row : 40 + 164 * row, 20 + 164 * column : 40 + 164 * column]
        assert np.abs(corner - colour).mean() < 12


def test_centre_crop_works_on_one_frame_and_on_many() -> None:
    stack = np.arange(2 * 6 * 10 * 3).reshape(2, 6, 10, 3)
    assert (centre_crop(stack, 4)[1] == centre_crop(stack[1], 4)).all()
    assert (centre_crop(stack[0], 4) == stack[0, 1:5, 3:7]).all()


def test_file_and_bytes_give_the_same_clip(tmp_path: Path) -> None:
    video = make_video(grey_frames(20))
    path = tmp_path / "clip.mp4"
    path.write_bytes(video)
    from_file = read_clip(path, frames=8, size=32, limits=UNLIMITED)
    assert (from_file.frames_THWC == read(video).frames_THWC).all()


def test_reading_media_imports_no_torch() -> None:
    script = "import sys, model.media.video; print(sorted({'torch', 'decord'} & set(sys.modules)))"
    asked = [sys.executable, "-c", script]
    found = subprocess.run(asked, cwd=REPO, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
