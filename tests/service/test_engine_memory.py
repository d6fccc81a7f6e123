"""Out of memory: free, halve, try once more; then the batch is refused, then the process is."""

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest
import torch

from model.episode import EncodedSupport, MatchScores
from service.engine.engine import Engine
from service.engine.work import is_device_lost, is_out_of_memory
from service.errors import DeviceMemoryError, ServerStoppingError
from service.http.problems import problem_of, status_of
from tests.devices import Device, SmallMemory
from tests.held_device import device_held
from tests.model.tiny import clips, tiny_recognizer


def frames(count: int, seed: int = 0) -> np.ndarray:
    return clips(count, seed=seed).numpy()


@pytest.fixture
def memory() -> SmallMemory:
    return SmallMemory(100)


@pytest.fixture
async def engine(memory: SmallMemory) -> AsyncIterator[Engine]:
    engine = Engine(Device(tiny_recognizer(), memory), batch_frames=64, slice_clips=8)
    await engine.start()
    memory.asked.clear()
    yield engine
    await engine.close()


@pytest.fixture
async def support(engine: Engine, memory: SmallMemory) -> EncodedSupport:
    support = await engine.encode_support(frames(4), [0, 0, 1, 1], None)
    memory.asked.clear()
    return support


def logits(scores: list[MatchScores]) -> list[list[float]]:
    return [score.logits_N for score in scores]


async def test_a_batch_too_large_for_memory_is_halved_once(
    engine: Engine, memory: SmallMemory, support: EncodedSupport
) -> None:
    freed: list[bool] = []
    engine.relieve_with(lambda: freed.append(True))
    want = await engine.classify(frames(8), support)
    memory.clips = 4
    memory.asked.clear()
    got = await engine.classify(frames(8), support)
    assert memory.asked == [8, 4, 4]
    assert freed == [True]
    assert np.allclose(
        logits([answer.scores for answer in got]),
        logits([answer.scores for answer in want]),
        atol=1e-4,
    )
    assert engine.memory_failures == 0
    assert engine.silent_s < 60


async def test_a_registration_too_large_for_memory_goes_in_halves(
    engine: Engine, memory: SmallMemory
) -> None:
    memory.clips = 4
    await engine.encode_support(frames(8), [0, 1] * 4, None)
    assert memory.asked == [8, 4, 4]


async def test_a_second_failure_refuses_the_batch_and_lowers_the_cap(
    engine: Engine, memory: SmallMemory, support: EncodedSupport
) -> None:
    memory.clips = 3
    with pytest.raises(DeviceMemoryError) as refused:
        await engine.classify(frames(8), support)
    assert status_of(refused.value) == 503
    assert problem_of(refused.value, "").retryable
    assert refused.value.code == "device-out-of-memory"
    assert engine.batcher.budget_frames == 32
    while engine.memory_failures < 2:  # noqa: ASYNC110  the other half fails after the answer
        await asyncio.sleep(0.01)
    assert engine.silent_s < 60
    memory.asked.clear()
    assert len(await engine.classify(frames(8), support)) == 8  # the cap fits, halved once
    assert memory.asked == [4, 2, 2, 4, 2, 2]


async def test_a_device_without_memory_again_and_again_is_not_alive(
    engine: Engine, memory: SmallMemory, support: EncodedSupport
) -> None:
    memory.clips = 0
    for _ in range(2):
        with pytest.raises(DeviceMemoryError):
            await engine.classify(frames(1), support)
    assert engine.silent_s == float("inf")


async def test_two_failures_with_a_success_between_them_are_no_pattern(
    engine: Engine, memory: SmallMemory, support: EncodedSupport
) -> None:
    for _ in range(3):
        memory.clips = 0
        with pytest.raises(DeviceMemoryError):
            await engine.classify(frames(1), support)
        memory.clips = 100
        await engine.classify(frames(1), support)
    assert engine.silent_s < 60


async def test_a_lost_device_is_not_alive(engine: Engine, support: EncodedSupport) -> None:
    def lose(_: int) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    engine._thread.runtime.before = lose  # type: ignore[attr-defined]
    with device_held(engine):
        asked = [asyncio.create_task(engine.classify(frames(1), support)) for _ in range(3)]
        await asyncio.sleep(0.05)
    assert all(
        isinstance(outcome, ServerStoppingError)  # and so may be asked again
        for outcome in await asyncio.gather(*asked, return_exceptions=True)
    )
    assert engine.silent_s == float("inf")


@pytest.mark.parametrize(
    ("error", "memory", "lost"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), True, False),
        (MemoryError(), True, False),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ..."), True, False),
        (RuntimeError("[ONNXRuntimeError] : Failed to allocate memory for ..."), True, False),
        (RuntimeError("CUDA error: device-side assert triggered"), False, True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False, False),
        (ValueError("out of memory"), False, False),
    ],
)
def test_faults_are_told_apart(error: Exception, memory: bool, lost: bool) -> None:
    assert is_out_of_memory(error) is memory
    assert is_device_lost(error) is lost
