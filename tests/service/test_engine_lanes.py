"""Parts of a batch on cores of their own: the same answers, and faults stay where they belong."""

import asyncio
import os
import sys
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.passes.lanes import Lanes
from model.recognizer import Recognizer
from service.decoding.sandbox import NICENESS
from service.engine.engine import Engine
from service.engine.passes.batching import shares
from service.errors import DeviceMemoryError, EngineError
from tests.devices import Device
from tests.model.tiny import clips, tiny_recognizer

CLASSES = [0, 0, 1, 1]


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return tiny_recognizer()


class Noted(Device):
    """Notes who runs how many clips, and how many run at once."""

    def __init__(self, recognizer: Recognizer) -> None:
        super().__init__(recognizer, self.begin)
        self.begun: list[tuple[str, int]] = []

    def begin(self, count: int) -> None:
        self.begun.append((threading.current_thread().name, count))


@pytest.fixture
def device(recognizer: Recognizer) -> Noted:
    return Noted(recognizer)


@pytest.fixture
async def engine(device: Noted) -> AsyncIterator[Engine]:
    engine = Engine(device, batch_frames=64, lanes=3)
    await engine.start()
    device.begun.clear()
    yield engine
    await engine.close()


def frames(count: int, seed: int = 0) -> np.ndarray:
    return clips(count, seed=seed).numpy()


@given(count=st.integers(0, 50), lanes=st.integers(1, 9))
def test_shares_cover_everything_in_order_and_are_alike(count: int, lanes: int) -> None:
    parts = [range(count)[share] for share in shares(count, lanes)]
    assert [place for part in parts for place in part] == [*range(count)]
    assert len(parts) == lanes
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_lane_has_one_thread_and_leaves_the_others_theirs() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        lanes = Lanes(2)
        assert lanes.start(lambda _: torch.get_num_threads(), [1, 2])() == [1, 1]
        assert torch.get_num_threads() == 2
        lanes.close()
    finally:
        torch.set_num_threads(threads)


def test_no_part_runs_on_when_another_has_failed() -> None:
    lanes, ended = Lanes(2), threading.Event()

    def work(slow: bool) -> None:
        if not slow:
            raise ValueError("at once")
        time.sleep(0.2)
        ended.set()

    with pytest.raises(ValueError, match="at once"):
        lanes.start(work, [False, True])()
    assert ended.is_set()
    lanes.close()


async def test_answers_of_lanes_are_those_of_one_pass_in_the_order_asked(
    engine: Engine, device: Noted, recognizer: Recognizer
) -> None:
    one_by_one = Engine(recognizer, batch_frames=64)
    await one_by_one.start()
    text = await engine.encode_text(["jump", "wave"], [("jump",) * 3, ("wave",) * 3])
    support = await engine.encode_support(frames(4), CLASSES, text)
    device.begun.clear()
    many = frames(8, seed=5)
    got = await engine.classify(many, support)
    assert sorted(count for _, count in device.begun) == [2, 3, 3]
    assert all(name.startswith("lane") for name, _ in device.begun)
    for clip, answer in zip(many, got, strict=True):
        (want,) = await one_by_one.classify([clip], support)
        np.testing.assert_allclose(answer.scores.logits_N, want.scores.logits_N, atol=1e-4)
    await one_by_one.close()


async def test_batches_under_way_together_do_not_mix_their_clips(recognizer: Recognizer) -> None:
    engine = Engine(recognizer, batch_frames=32, lanes=2)
    await engine.start()
    support = await engine.encode_support(frames(4), CLASSES, None)
    many = frames(12, seed=7)
    want = [(await engine.classify([clip], support))[0].scores.logits_N for clip in many]
    order = np.random.default_rng(0).integers(0, len(many), 400)
    got = await asyncio.gather(*(engine.classify([many[place]], support) for place in order))
    for place, (answer,) in zip(order, got, strict=True):
        np.testing.assert_allclose(answer.scores.logits_N, want[place], atol=1e-4)
    await engine.close()


async def test_fewer_clips_than_lanes_go_through_all_cores_together(
    engine: Engine, device: Noted
) -> None:
    support = await engine.encode_support(frames(4), CLASSES, None)
    device.begun.clear()
    await engine.classify(frames(2), support)
    assert device.begun == [("device", 2)]


async def test_a_clip_that_fails_in_its_lane_fails_alone(engine: Engine) -> None:
    support = await engine.encode_support(frames(4), CLASSES, None)
    other = tiny_recognizer(seed=1)
    with torch.inference_mode():
        foreign = other.encode_support(other.trunk(frames(4)), CLASSES, None)
        foreign = replace(foreign, fingerprint="other weights")
    tasks = [support, support, foreign, support, support, support]
    answers = await asyncio.gather(
        *(engine.classify([clip], one) for clip, one in zip(frames(6), tasks, strict=True)),
        return_exceptions=True,
    )
    failed = [isinstance(answer, EngineError) for answer in answers]
    assert failed == [False, False, True, False, False, False]


async def test_memory_that_runs_out_in_a_lane_halves_the_batch(
    engine: Engine, device: Noted
) -> None:
    support = await engine.encode_support(frames(4), CLASSES, None)

    def begin(count: int) -> None:
        if count > 1:
            raise torch.OutOfMemoryError(f"no memory for {count} clips")

    device.before = begin
    assert len(await engine.classify(frames(6), support)) == 6  # halves of 3 are 1 a lane
    with pytest.raises(DeviceMemoryError):
        await engine.classify(frames(8), support)


@pytest.mark.skipif(sys.platform != "linux", reason="a thread's priority is Linux's")
def test_lanes_let_short_work_go_first() -> None:
    lanes = Lanes(2, NICENESS)
    found = lanes.start(
        lambda _: os.getpriority(os.PRIO_PROCESS, threading.get_native_id()), [1, 2]
    )()
    lanes.close()
    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    assert found == [min(own + NICENESS, 19)] * 2
    assert os.getpriority(os.PRIO_PROCESS, 0) == own
