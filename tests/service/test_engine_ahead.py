"""A device that works by itself gets a full batch before it is done with the last one."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence

import numpy as np
import pytest
import torch

from model.episode import EncodedSupport, MatchScores, Scored, plain
from service.engine.engine import Engine
from service.engine.work import Classified
from service.errors import EngineError, ServerStoppingError
from tests.devices import Device
from tests.model.tiny import clips, tiny_recognizer

BATCH = 4  # clips


class FarDevice(Device):
    """Answers when it is let; notes how many clips it was given, and gave back, in order."""

    def __init__(self) -> None:
        super().__init__(tiny_recognizer(), lambda _: None)
        self.free = threading.Semaphore(1000)
        self.events: list[str] = []
        self.fails: list[Exception] = []

    def landing(self, scored: Sequence[Scored], _: torch.device) -> Callable[[], list[MatchScores]]:
        count = sum(len(group.places) for group in scored)
        self.events.append(f"sent {count}")

        def landed() -> list[MatchScores]:
            assert self.free.acquire(timeout=20)
            self.events.append(f"landed {count}")
            if self.fails:
                raise self.fails.pop()
            return plain(scored)

        return landed

    def hold(self) -> None:
        while self.free.acquire(blocking=False):
            pass
        self.events.clear()


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> FarDevice:
    far = FarDevice()
    monkeypatch.setattr("service.engine.device.landing", far.landing)
    return far


@pytest.fixture
async def engine(device: FarDevice) -> AsyncIterator[Engine]:
    engine = Engine(device, batch_frames=8 * BATCH, ahead=True)
    await engine.start()
    yield engine
    device.free.release(1000)
    await engine.close()


def frames(count: int, seed: int = 0) -> np.ndarray:
    return clips(count, seed=seed).numpy()


async def until(device: FarDevice, events: list[str]) -> None:
    for _ in range(500):
        if device.events == events:
            return
        await asyncio.sleep(0.01)
    assert device.events == events


async def two_under_way(
    engine: Engine, device: FarDevice, support: EncodedSupport
) -> list[asyncio.Task[list[Classified]]]:
    device.hold()
    asked = [
        asyncio.create_task(engine.classify(frames(BATCH, seed=seed), support)) for seed in (0, 1)
    ]
    await until(device, ["sent 4", "sent 4"])
    return asked


async def test_a_full_batch_is_sent_while_the_last_one_is_under_way(
    engine: Engine, device: FarDevice
) -> None:
    support = await engine.encode_support(frames(4), [0, 0, 1, 1], None)
    device.hold()
    asking = asyncio.create_task(engine.classify(frames(3 * BATCH), support))
    await until(device, ["sent 4", "sent 4"])
    device.free.release(1)
    await until(device, ["sent 4", "sent 4", "landed 4", "sent 4"])
    device.free.release(2)
    await asking


async def test_a_batch_that_may_grow_waits_until_the_device_is_free(
    engine: Engine, device: FarDevice
) -> None:
    support = await engine.encode_support(frames(4), [0, 0, 1, 1], None)
    device.hold()
    first = asyncio.create_task(engine.classify(frames(BATCH), support))
    await until(device, ["sent 4"])
    few = asyncio.create_task(engine.classify(frames(1), support))
    await asyncio.sleep(0.05)
    more = asyncio.create_task(engine.classify(frames(2), support))
    await asyncio.sleep(0.05)
    assert device.events == ["sent 4"]
    device.free.release(2)
    await asyncio.gather(first, few, more)
    assert device.events == ["sent 4", "landed 4", "sent 3", "landed 3"]


async def test_answers_sent_ahead_are_those_of_their_own_clips(
    engine: Engine, device: FarDevice
) -> None:
    tasks = [await engine.encode_support(frames(4, seed), [0, 0, 1, 1], None) for seed in range(3)]
    many = frames(30, seed=9)
    want = [(await engine.classify([clip], tasks[n % 3]))[0] for n, clip in enumerate(many)]
    got = await asyncio.gather(
        *(engine.classify([clip], tasks[n % 3]) for n, clip in enumerate(many))
    )
    assert device.events.count("sent 4") > 5
    for alone, (mixed,) in zip(want, got, strict=True):
        np.testing.assert_allclose(mixed.scores.logits_N, alone.scores.logits_N, atol=1e-3)


async def test_a_registration_waits_for_the_batch_under_way(
    engine: Engine, device: FarDevice
) -> None:
    support = await engine.encode_support(frames(4), [0, 0, 1, 1], None)
    device.hold()
    asking = asyncio.create_task(engine.classify(frames(BATCH), support))
    await until(device, ["sent 4"])
    registering = asyncio.create_task(
        engine.encode_support(
            frames(2), [0, 1], None, lambda done: device.events.append(f"encoded {done}")
        )
    )
    await asyncio.sleep(0.05)
    assert device.events == ["sent 4"]
    device.free.release(1)
    await asyncio.gather(asking, registering)
    assert device.events == ["sent 4", "landed 4", "encoded 2"]


async def test_a_batch_that_fails_under_way_is_done_again_and_harms_no_other(
    engine: Engine, device: FarDevice
) -> None:
    support = await engine.encode_support(frames(4), [0, 0, 1, 1], None)
    first, second = await two_under_way(engine, device, support)
    device.fails.append(RuntimeError("a kernel failed"))
    device.free.release(10)
    one, other = await asyncio.gather(first, second)
    assert device.events == ["sent 4", "sent 4", "landed 4", "landed 4", "sent 4", "landed 4"]
    for seed, answers in enumerate((one, other)):
        again = await engine.classify(frames(BATCH, seed=seed), support)
        for got, want in zip(answers, again, strict=True):
            np.testing.assert_allclose(got.scores.logits_N, want.scores.logits_N, atol=1e-4)


async def test_a_device_that_is_lost_under_way_refuses_what_it_had(
    engine: Engine, device: FarDevice
) -> None:
    support = await engine.encode_support(frames(4), [0, 0, 1, 1], None)
    first, second = await two_under_way(engine, device, support)
    lost = "CUDA error: an illegal memory access was encountered"
    device.fails += [RuntimeError(lost) for _ in range(20)]
    device.free.release(100)
    answers = await asyncio.gather(first, second, return_exceptions=True)
    assert all(isinstance(answer, ServerStoppingError) for answer in answers)
    assert engine.silent_s == float("inf")


async def test_a_fault_before_the_device_costs_one_clip_alone(engine: Engine) -> None:
    support = await engine.encode_support(frames(4), [0, 0, 1, 1], None)
    many = list(frames(BATCH))
    many[1] = frames(1)[0][:, :8]  # another size: nothing can be made of it
    answers = await asyncio.gather(
        *(engine.classify([clip], support) for clip in many), return_exceptions=True
    )
    assert [isinstance(answer, EngineError) for answer in answers] == [False, True, False, False]


async def test_stopping_answers_what_is_under_way(device: FarDevice) -> None:
    engine = Engine(device, batch_frames=8 * BATCH, ahead=True)
    await engine.start()
    support = await engine.encode_support(frames(4), [0, 0, 1, 1], None)
    device.hold()
    asking = asyncio.create_task(engine.classify(frames(BATCH), support))
    await until(device, ["sent 4"])
    closing = asyncio.create_task(engine.close())
    await asyncio.sleep(0.05)
    device.free.release(5)
    await closing
    assert len(await asking) == BATCH
