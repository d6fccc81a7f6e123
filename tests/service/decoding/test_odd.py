"""Odd, damaged and hostile clips in the pool: each is a clip or a refusal, and nobody dies."""

import asyncio
import collections
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model import errors
from model.media.video import read_clip
from service.decoding.pool import DecodePool
from tests.pools import LIMITS, make_pool, pids, request
from tests.videos import grey_frames, make_video

REPO = Path(__file__).parents[3]
SHARED = Path(os.environ.get("KSHOT_SHARED", REPO.parent / "shared"))
ODD = SHARED / "media/odd"


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as running:
        yield running


@pytest.fixture(scope="module")
def shared_pool(runner: asyncio.Runner) -> Iterator[DecodePool]:
    """One pool for the tests that only look at outcomes."""
    pool = make_pool(workers=2)
    runner.run(pool.start())
    yield pool
    runner.run(pool.close())


async def outcome_of(pool: DecodePool, video: bytes) -> str:
    try:
        await pool.decode(request(video))
    except errors.ClipError as error:
        return error.code
    return "clip"


def outcome_here(video: bytes) -> str:
    try:
        read_clip(video, frames=8, size=32, limits=LIMITS)
    except errors.ClipError as error:
        return error.code
    return "clip"


def test_every_odd_file_is_a_clip_or_a_refusal(
    runner: asyncio.Runner, shared_pool: DecodePool
) -> None:
    """The same outcome in the sandbox as outside: nothing that decoding needs is locked away."""
    paths = sorted(path for path in ODD.glob("*") if path.suffix != ".tsv")
    if not paths:
        pytest.skip(f"no files in {ODD}: set KSHOT_SHARED to read the odd ones")
    before = pids(shared_pool)

    async def outcomes_there() -> list[str]:
        return await asyncio.gather(*(outcome_of(shared_pool, path.read_bytes()) for path in paths))

    outcomes = dict(zip((path.name for path in paths), runner.run(outcomes_there()), strict=True))
    assert pids(shared_pool) == before
    assert outcomes == {path.name: outcome_here(path.read_bytes()) for path in paths}
    counts = collections.Counter(outcomes.values())
    assert counts["clip"] >= 65, counts
    assert counts["clip-undecodable"] <= 10, counts


SEEDS = {
    "mp4": make_video(grey_frames(12)),
    "webm": make_video(grey_frames(12), codec="libvpx-vp9", container="webm"),
    "avi": make_video(grey_frames(12), codec="mpeg4", container="avi"),
    "hevc": make_video(grey_frames(12), codec="libx265", options={"x265-params": "log-level=none"}),
}
CHANGES = st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=8))


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.sampled_from(sorted(SEEDS)), st.lists(CHANGES, max_size=8), st.floats(0.3, 1))
def test_damaged_clip_is_a_clip_or_a_refusal(
    runner: asyncio.Runner,
    shared_pool: DecodePool,
    kind: str,
    changes: list[tuple[float, bytes]],
    kept: float,
) -> None:
    data = bytearray(SEEDS[kind])
    for where, replacement in changes:
        at = int(where * len(data))
        data[at : at + len(replacement)] = replacement
    assert runner.run(outcome_of(shared_pool, bytes(data[: int(kept * len(data))])))
    assert shared_pool.alive == 2


def test_noise_after_a_true_beginning_is_a_refusal(
    runner: asyncio.Runner, shared_pool: DecodePool
) -> None:
    noise = np.random.default_rng(0).bytes(20000)
    for video in SEEDS.values():
        assert runner.run(outcome_of(shared_pool, video[:40] + noise)) != "clip"
