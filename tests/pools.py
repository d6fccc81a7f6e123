"""Decode pools small enough for tests, and ways to look at their processes."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from model.media.container import MediaLimits
from service.decoding.pool import ClipRequest, DecodePool
from service.decoding.process import Decoder
from service.decoding.sandbox import SandboxLimits
from tests.videos import grey_frames, make_video

LIMITS = MediaLimits()
VIDEO = make_video(grey_frames(30))


def make_pool(
    workers: int = 1,
    media: MediaLimits = LIMITS,
    size: int = 32,
    squash: int | None = None,
    **sandbox: float,
) -> DecodePool:
    limits = SandboxLimits(**sandbox)
    return DecodePool(
        workers=workers, frames=8, size=size, squash=squash, media=media, sandbox=limits
    )


def request(video: bytes = VIDEO, **span: float) -> ClipRequest:
    return ClipRequest(video=video, **span)


def decoders(pool: DecodePool) -> list[Decoder]:
    return sorted(pool._decoders, key=lambda decoder: decoder.pid)


def pids(pool: DecodePool) -> set[int]:
    return {decoder.pid for decoder in decoders(pool)}


async def until(claim: Callable[[], bool], within_s: float = 60.0) -> None:
    async with asyncio.timeout(within_s):
        while not claim():  # noqa: ASYNC110 - processes set no event
            await asyncio.sleep(0.001)


async def until_full(pool: DecodePool) -> None:
    await until(lambda: pool.alive == pool.workers)


async def until_busy(pool: DecodePool) -> None:
    await until(lambda: any(decoder.clips for decoder in decoders(pool)))


def shown_by_kernel(pid: int, name: str) -> bytes | None:
    """/proc/PID/NAME, or None where the kernel keeps it from us or the process has ended."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except (PermissionError, FileNotFoundError, ProcessLookupError):
        return None


def decoder_processes() -> list[int]:
    """The decoders that this process has started and that still run."""
    children = [
        int(pid)
        for thread in Path("/proc/self/task").iterdir()
        for pid in (thread / "children").read_text().split()
    ]
    return [
        pid for pid in children if b"service.decoding" in (shown_by_kernel(pid, "cmdline") or b"")
    ]
