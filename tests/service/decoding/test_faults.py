"""Decoders that die, hang, grow or eat: the clip is refused, the neighbours notice nothing."""

import asyncio
import io
import os
import signal
import time
from collections.abc import AsyncIterator

import pytest
from PIL import Image

from model import errors
from model.media.container import MediaLimits
from service.decoding.pool import ClipRequest, DecodePool
from service.decoding.process import DecoderUnavailableError
from service.errors import DecoderBusyError
from service.http.problems import problem_of
from tests.pools import (
    decoder_processes,
    decoders,
    make_pool,
    pids,
    request,
    shown_by_kernel,
    until,
    until_busy,
    until_full,
)
from tests.videos import grey_frames, make_video


@pytest.fixture
async def pool() -> AsyncIterator[DecodePool]:
    async with make_pool() as started:
        yield started


def heavy_video(frames: int = 900) -> bytes:
    """Small in bytes, seconds of work: the same few large pictures, each of them to be decoded."""
    still = grey_frames(6, 1280, 720)
    return make_video(still, codec="mpeg4", rate=60, repeats=frames // 6)


async def test_killed_decoder_fails_its_clip_alone_and_is_replaced() -> None:
    async with make_pool(workers=2) as pool:
        before = pids(pool)
        slow = asyncio.create_task(pool.decode(request(heavy_video())))
        await until_busy(pool)
        busy = next(decoder for decoder in decoders(pool) if decoder.clips)
        neighbour = asyncio.create_task(pool.decode(request()))
        os.kill(busy.pid, signal.SIGKILL)
        with pytest.raises(errors.ClipUndecodableError, match="died on the clip"):
            await slow
        assert (await neighbour).distinct == 8
        await until_full(pool)
        assert busy.pid not in pids(pool)
        assert len(pids(pool) & before) == 1
        assert (await pool.decode(request())).distinct == 8


async def test_decoder_killed_while_idle_costs_no_clip(pool: DecodePool) -> None:
    os.kill(decoders(pool)[0].pid, signal.SIGKILL)
    await until(lambda: pool.alive == 0)
    assert (await pool.decode(request())).distinct == 8
    assert pool.alive == 1


@pytest.mark.parametrize("stops", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_that_stops_the_service_with_all_its_processes_costs_no_clip(
    pool: DecodePool, stops: signal.Signals
) -> None:
    (decoder,) = decoders(pool)
    slow = asyncio.create_task(pool.decode(request(heavy_video(300))))
    await until_busy(pool)
    os.kill(decoder.pid, stops)
    assert (await slow).distinct == 8
    assert pids(pool) == {decoder.pid}


async def test_decoder_without_processor_time_is_no_fault_of_its_clip() -> None:
    async with make_pool(workers=2, wall_s=1.0) as pool:
        stopped = decoders(pool)[0].pid
        os.kill(stopped, signal.SIGSTOP)  # as on a machine that has no time for it
        start = time.monotonic()
        outcomes = await asyncio.gather(
            *(pool.decode(request()) for _ in range(6)), return_exceptions=True
        )
        assert time.monotonic() - start < 4
        failed = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        assert [type(failure) for failure in failed] == [DecoderBusyError]
        assert "within 1 s" in str(failed[0])
        told = problem_of(failed[0], "")
        assert (told.status, told.retryable) == (503, True)
        await until_full(pool)
        assert stopped not in pids(pool)


async def test_processor_time_is_counted_anew_for_each_clip_whatever_its_decoder_did() -> None:
    async with make_pool(cpu_s=1, clips_per_worker=1000) as pool:
        (decoder,) = decoders(pool)
        used_s = 0.0
        while used_s < 1.5:  # more than one clip may use
            await pool.decode(request())
            shown = shown_by_kernel(decoder.pid, "stat")
            if shown is None:
                pytest.skip("the kernel does not tell a sandboxed process's time")
            ticks = shown.rpartition(b")")[2].split()
            used_s = (int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK")
        assert pids(pool) == {decoder.pid}


async def test_clip_that_eats_processor_time_is_given_up() -> None:
    media = MediaLimits(max_frames=10**6, max_duration_s=10**4, max_bytes=2**30)
    async with make_pool(cpu_s=1, media=media) as pool:
        with pytest.raises(errors.ClipDecodeTimeoutError, match="1 s of processor time"):
            await pool.decode(request(heavy_video(9000)))
        assert (await pool.decode(request())).distinct == 8


def still_png(side: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


async def test_clip_that_eats_memory_is_given_up() -> None:
    media = MediaLimits(max_pixels=2**30, max_bytes=2**30)
    async with make_pool(memory_bytes=400 * 2**20, media=media) as pool:
        bombs = (
            ClipRequest(video=None, pictures=(still_png(7000),) * 8),
            request(make_video(grey_frames(1, 8000, 4000), codec="mpeg4", repeats=8)),
        )
        for bomb in bombs:
            with pytest.raises((errors.ClipDecodeTimeoutError, errors.ClipUndecodableError)):
                await pool.decode(bomb)
        assert (await pool.decode(request())).distinct == 8


async def test_decoder_that_holds_too_much_memory_is_replaced() -> None:
    async with make_pool(resident_bytes=1) as pool:
        before = pids(pool)
        await pool.decode(request())
        assert (await pool.decode(request())).distinct == 8
        assert not pids(pool) & before


async def test_decoder_is_replaced_after_its_share_of_clips() -> None:
    async with make_pool(clips_per_worker=2) as pool:
        served = []
        for _ in range(4):
            await pool.decode(request())
            served.append(pids(pool))
        assert served[0] == served[0] | served[1]
        assert not served[0] & served[2]


async def test_caller_that_leaves_does_not_mix_up_answers() -> None:
    clips = {count: make_video(grey_frames(count)) for count in range(8, 28)}
    async with make_pool(workers=2) as pool:
        for count, video in clips.items():
            leaving = asyncio.create_task(pool.decode(request(video)))
            await asyncio.sleep(0.001 * (count % 5))
            leaving.cancel()
            staying = await pool.decode(request(clips[35 - count]))
            assert staying.duration_s == pytest.approx((35 - count) / 30)
        assert pool.alive == 2


async def test_closing_leaves_no_process_and_no_caller_behind() -> None:
    pool = make_pool(workers=2)
    await pool.start()
    started = pids(pool)
    video = heavy_video()
    callers = [asyncio.create_task(pool.decode(request(video))) for _ in range(4)]
    await until_busy(pool)
    await pool.close()
    outcomes = await asyncio.gather(*callers, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {DecoderUnavailableError}
    with pytest.raises(DecoderUnavailableError, match="closed"):
        await pool.decode(request())
    assert pool.alive == 0
    for pid in started:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_closing_during_a_replacement_leaves_no_process() -> None:
    others = decoder_processes()  # of a service that other tests share
    pool = make_pool(clips_per_worker=1)
    await pool.start()
    await pool.decode(request())
    await asyncio.sleep(0.05)
    await pool.close()
    for _ in range(40):  # the kernel may show a killed process for a moment
        if set(decoder_processes()) <= set(others):
            break
        await asyncio.sleep(0.05)
    assert set(decoder_processes()) <= set(others)


async def test_pool_that_cannot_start_says_why_and_leaves_nothing() -> None:
    pool = make_pool(workers=2, memory_bytes=2**20)
    with pytest.raises(DecoderUnavailableError, match="check its memory limit of 1048576 bytes"):
        await pool.start()
    assert pool.alive == 0


async def test_pool_that_takes_too_long_to_start_says_so() -> None:
    with pytest.raises(DecoderUnavailableError, match=r"not ready after 0\.01 s"):
        await make_pool(start_s=0.01).start()


def test_pool_without_workers_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="at least one worker"):
        make_pool(workers=0)
