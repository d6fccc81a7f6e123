"""What a clip gives in the pool is what it gives without it; how many decoders, and their pace."""

import asyncio
import io
import mmap
import os
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from model import errors
from model.media.pictures import read_pictures
from model.media.sampling import Clip
from model.media.video import read_clip
from model.media.windows import WindowGrid
from service.decoding.pool import (
    ClipRequest,
    DecodePool,
)
from service.decoding.process import LEAST_WORKERS, usable_cores
from service.decoding.sandbox import SandboxLimits
from service.decoding.streams import VideoStreams
from service.decoding.turns import FIRST_BYTES, FIRST_S, DecodePace
from tests.pools import LIMITS, VIDEO, decoders, make_pool, request, shown_by_kernel
from tests.service.conftest import png
from tests.videos import corner_frames, grey_frames, make_audio, make_video


@pytest.fixture
async def pool() -> AsyncIterator[DecodePool]:
    async with make_pool() as started:
        yield started


def same(ours: Clip, theirs: Clip) -> bool:
    parts = ("times_s", "duration_s", "codec", "distinct", "warnings")
    equal = all(getattr(ours, part) == getattr(theirs, part) for part in parts)
    return equal and bool((ours.frames_THWC == theirs.frames_THWC).all())


async def test_clip_from_the_pool_equals_the_clip_read_here(pool: DecodePool) -> None:
    here = read_clip(VIDEO, frames=8, size=32, limits=LIMITS, start_s=0.1, end_s=0.9)
    clip = await pool.decode(request(start_s=0.1, end_s=0.9))
    assert same(clip, here)
    assert torch.from_numpy(clip.frames_THWC).dtype == torch.uint8  # writable: no warning


async def test_squashed_frames_come_from_the_pool_and_from_long_videos(tmp_path: Path) -> None:
    """The whole frame is seen; pictures of the size already are not squashed again."""
    video = make_video(corner_frames(30, width=96, height=48))
    squashed = {"frames": 8, "size": 32, "squash": 40, "limits": LIMITS}
    here = read_clip(video, **squashed)  # type: ignore[arg-type]
    whole = read_clip(video, frames=8, size=32, limits=LIMITS)
    assert not np.array_equal(here.frames_THWC, whole.frames_THWC)
    kept = [png(pixels) for pixels in here.frames_THWC]
    async with make_pool(squash=40) as pool:
        assert same(await pool.decode(request(video)), here)
        again = await pool.decode(ClipRequest(video=None, pictures=tuple(kept)))
    assert (again.frames_THWC == here.frames_THWC).all()
    (tmp_path / "long.mp4").write_bytes(video)
    streams = VideoStreams(size=32, squash=40, media=LIMITS, sandbox=SandboxLimits(), most=1)
    with (tmp_path / "long.mp4").open("rb") as file:
        async with streams.open(file.fileno(), WindowGrid.of(8, 0.8, 0.8)) as stream:
            shown = [piece.frames_NHWC async for piece in stream.pieces()]
    assert (np.concatenate(shown)[:8] == here.frames_THWC).all()


async def test_decoders_let_the_event_loop_and_its_neighbours_go_first(pool: DecodePool) -> None:
    own = os.getpriority(os.PRIO_PROCESS, 0)
    nice = [os.getpriority(os.PRIO_PROCESS, decoder.pid) for decoder in decoders(pool)]
    assert nice
    assert all(one > own for one in nice)


async def test_pictures_from_the_pool_equal_the_pictures_read_here(pool: DecodePool) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    for kind in ("PNG", "JPEG", "MPO"):
        pictures = []
        for pixels in grey_frames(8):
            buffer = io.BytesIO()
            more = {"save_all": True, "append_images": [Image.new("RGB", (64, 48))]}
            extra = more if kind == "MPO" else {}
            Image.fromarray(pixels).save(buffer, kind, exif=turned, **extra)
            pictures.append(buffer.getvalue())
        here = read_pictures(pictures, frames=8, size=32, limits=LIMITS)
        assert same(await pool.decode(ClipRequest(video=None, pictures=tuple(pictures))), here)


async def test_refused_picture_keeps_its_sentence(pool: DecodePool) -> None:
    for pictures in ([b"x"], [b""] * 8, [b"\x89PNG\r\n\x1a\n" + bytes(99)] * 8, [b"GIF89a"] * 8):
        with pytest.raises(errors.ClipError) as there:
            await pool.decode(ClipRequest(video=None, pictures=tuple(pictures)))
        with pytest.raises(errors.ClipError) as here:
            read_pictures(pictures, frames=8, size=32, limits=LIMITS)
        assert str(there.value) == str(here.value)


async def test_span_of_pictures_is_refused(pool: DecodePool) -> None:
    with pytest.raises(errors.ClipSpanError, match="pictures"):
        await pool.decode(ClipRequest(video=None, pictures=(b"x",) * 8, start_s=0.5))


@pytest.mark.parametrize("fields", [{"video": None}, {"video": b"x", "pictures": (b"x",)}])
def test_request_is_either_video_or_pictures(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="either a video or pictures"):
        ClipRequest(**fields)


async def test_decoder_has_no_torch_though_the_service_has(pool: DecodePool) -> None:
    assert torch.get_num_threads() > 0
    introduction = decoders(pool)[0].introduction
    assert introduction["torch"] is False
    assert introduction["leaks"] == []
    assert b"libtorch" not in (shown_by_kernel(decoders(pool)[0].pid, "maps") or b"")
    assert {"av", "ffmpeg", "libavcodec"} <= (await pool.versions()).keys()


async def test_decoder_inherits_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-do-not-leak")
    async with make_pool() as pool:
        environment = shown_by_kernel(decoders(pool)[0].pid, "environ")
        if environment is None:
            pytest.skip("the kernel does not show this process's environment")
        assert b"PYTHONPATH" in environment
        assert b"sk-do-not-leak" not in environment


async def test_refusal_keeps_its_class_code_and_sentence(pool: DecodePool) -> None:
    with pytest.raises(errors.NoVideoStreamError) as there:
        await pool.decode(request(make_audio()))
    with pytest.raises(errors.NoVideoStreamError) as here:
        read_clip(make_audio(), frames=8, size=32, limits=LIMITS)
    assert str(there.value) == str(here.value)
    assert pool.alive == 1


async def test_decoder_uses_the_memory_of_one_clip_for_the_next() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG")
    clip = ClipRequest(video=None, pictures=(buffer.getvalue(),) * 8)
    async with make_pool(size=224) as pool:
        (decoder,) = decoders(pool)
        faults = []
        for _ in range(8):
            await pool.decode(clip)
            shown = shown_by_kernel(decoder.pid, "stat")
            if shown is None:
                pytest.skip("the kernel does not tell page faults of the sandboxed process")
            faults.append(int(shown.rpartition(b")")[2].split()[7]))  # min_flt
    pages = 8 * noise.nbytes // mmap.PAGESIZE  # of one clip; four were read
    assert faults[-1] - faults[3] < pages


async def test_clips_wait_for_their_turn(pool: DecodePool) -> None:
    clips = await asyncio.gather(*(pool.decode(request()) for _ in range(20)))
    assert all(same(clip, clips[0]) for clip in clips)


@pytest.mark.parametrize(
    ("quota", "most"), [("max 100000", None), ("350000 100000", 4), ("50000 100000", 1), ("", None)]
)
def test_cores_are_those_of_the_affinity_and_the_quota(
    tmp_path: Path, quota: str, most: int | None
) -> None:
    (tmp_path / "cpu.max").write_text(quota)
    mine = len(os.sched_getaffinity(0))
    assert usable_cores(tmp_path / "cpu.max") == max(LEAST_WORKERS, min(mine, most or mine))


def test_without_control_groups_the_affinity_counts(tmp_path: Path) -> None:
    assert usable_cores(tmp_path / "none") == max(LEAST_WORKERS, len(os.sched_getaffinity(0)))


def test_the_pace_starts_with_a_belief_and_follows_what_is_measured() -> None:
    pace = DecodePace()
    assert (pace.clip_bytes, pace.s_byte) == (FIRST_BYTES, FIRST_S / FIRST_BYTES)
    for _ in range(300):
        pace.note(1000, 0.1)
    assert pace.clip_bytes == pytest.approx(1000, rel=0.05)
    assert pace.s_byte == pytest.approx(1e-4, rel=0.05)
    for _ in range(100):
        pace.note(4000, 0.1)
    assert pace.clip_bytes > 3000


async def test_headers_are_read_without_decoding_and_refuse_what_decoding_would(
    pool: DecodePool,
) -> None:
    await pool.check(request(), "register")
    for bad in (request(make_audio()), request(start_s=50.0), request(b"x")):
        with pytest.raises(errors.ClipError) as early:
            await pool.check(bad, "register")
        with pytest.raises(errors.ClipError) as late:
            await pool.decode(bad)
        assert (early.value.code, str(early.value)) == (late.value.code, str(late.value))
    with pytest.raises(errors.PictureCountError):
        await pool.check(ClipRequest(video=None, pictures=(b"x",)), "register")
