"""The device thread: queries go first, nobody's fault is another's, and it stops cleanly."""

import asyncio
import gc
import time
import weakref
from collections.abc import AsyncIterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from model.errors import MethodError
from service.engine.cost import CostModel
from service.engine.engine import Engine
from service.engine.work import Pass
from service.errors import DeadlineError, DeadlineUnmetError, EngineError
from tests.held_device import device_held
from tests.model.tiny import clips, tiny_recognizer


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    engine = Engine(tiny_recognizer(), batch_frames=32, slice_clips=2)
    await engine.start()
    yield engine
    await engine.close()


def frames(count: int, seed: int = 0) -> np.ndarray:
    return clips(count, seed=seed).numpy()


async def test_queries_go_between_the_slices_of_a_registration(engine: Engine) -> None:
    support = await engine.encode_support(frames(4), [0, 0, 1, 1], None)
    order: list[str] = []
    with device_held(engine):
        registering = asyncio.create_task(
            engine.encode_support(
                frames(12), [0, 1] * 6, None, lambda done: order.append(f"slice {done}")
            )
        )
        await asyncio.sleep(0.05)
        querying = asyncio.create_task(engine.classify(frames(1), support))
        querying.add_done_callback(lambda _: order.append("query"))
        await asyncio.sleep(0.05)
    await asyncio.gather(registering, querying)
    assert order.index("query") < order.index("slice 12")


async def test_registration_goes_on_under_a_flood_of_queries(engine: Engine) -> None:
    support = await engine.encode_support(frames(4), [0, 0, 1, 1], None)
    flood = True

    async def ask() -> None:
        while flood:
            await engine.classify(frames(4), support)

    asking = [asyncio.create_task(ask()) for _ in range(4)]
    await asyncio.wait_for(engine.encode_support(frames(20), [0, 1] * 10, None), 20)
    flood = False
    await asyncio.gather(*asking)


async def test_a_query_that_fails_leaves_its_batch_alone(engine: Engine) -> None:
    support = await engine.encode_support(frames(4), [0, 0, 1, 1], None)
    foreign = replace(support, fingerprint="other weights")
    with device_held(engine):
        good = [asyncio.create_task(engine.classify(frames(1, seed), support)) for seed in range(3)]
        bad = asyncio.create_task(engine.classify(frames(1), foreign))
        await asyncio.sleep(0.05)
    assert [len(await answer) for answer in good] == [1, 1, 1]
    with pytest.raises(EngineError):
        await bad


async def test_a_query_nobody_waits_for_never_reaches_the_device(engine: Engine) -> None:
    support = await engine.encode_support(frames(4), [0, 0, 1, 1], None)
    with device_held(engine):
        query = asyncio.create_task(engine.classify(frames(3), support))
        await asyncio.sleep(0.05)
        assert engine.queued_frames == 24
        query.cancel()
        await asyncio.gather(query, return_exceptions=True)
        assert engine.queued_frames == 0
    await engine.classify(frames(1), support)
    assert engine.dropped == {"disconnect": 3}


async def test_closing_fails_what_waits_and_refuses_what_comes() -> None:
    engine = Engine(tiny_recognizer(), batch_frames=32, slice_clips=2)
    await engine.start()
    support = await engine.encode_support(frames(4), [0, 0, 1, 1], None)
    with device_held(engine):
        waiting = asyncio.create_task(engine.classify(frames(1), support))
        await asyncio.sleep(0.05)
        closing = asyncio.create_task(engine.close())
        await asyncio.sleep(0.05)
    await closing
    with pytest.raises(EngineError, match="stopped"):
        await waiting
    with pytest.raises(EngineError, match="stopped"):
        await engine.classify(frames(1), support)
    assert engine.silent_s == float("inf")
    assert engine.dropped == {"shutdown": 1}


def test_a_transductive_method_is_not_served() -> None:
    for method in (
        tiny_recognizer(query_context="joint"),
        tiny_recognizer(align="joint"),
    ):
        with pytest.raises(MethodError, match="see each other"):
            Engine(method, batch_frames=32, slice_clips=2)


@pytest.mark.parametrize(
    ("preset", "needs_text", "stages"), [("clip_fsar", True, 1), ("task_adapter_pp", False, 3)]
)
def test_the_engine_says_what_its_model_wants_of_text(
    preset: str, needs_text: bool, stages: int
) -> None:
    model = Engine(tiny_recognizer(preset), batch_frames=32).model
    assert (model.has_text, model.needs_text, model.stages) == (True, needs_text, stages)


async def test_work_past_its_deadline_is_refused(engine: Engine) -> None:
    support = await engine.encode_support(frames(4), [0, 0, 1, 1], None)
    past = time.monotonic() - 1
    with pytest.raises(DeadlineError):
        await engine.classify(frames(1), support, tenant="a", deadline=past)
    with pytest.raises(DeadlineError):
        await engine.encode_support(frames(2), [0, 1], None, work="rebuild", deadline=past)
    assert engine.drain_rate > 0
    assert engine.queued_frames == 0


async def test_a_deadline_that_passes_in_the_queue_is_told(engine: Engine) -> None:
    support = await engine.encode_support(frames(4), [0, 0, 1, 1], None)
    with device_held(engine):
        late = asyncio.create_task(
            engine.classify(frames(2), support, deadline=time.monotonic() + 0.1)
        )
        await asyncio.sleep(0.2)
    with pytest.raises(DeadlineError, match="could not be met"):
        await late
    assert engine.dropped["deadline"] >= 1


async def test_what_cannot_be_done_in_time_is_refused_at_once(engine: Engine) -> None:
    support = await engine.encode_support(frames(4), [0, 0, 1, 1], None)
    engine.cost.observe = lambda *_: None  # type: ignore[method-assign]
    for _ in range(10):
        CostModel.observe(engine.cost, "classify", 8, 1.0)
    with pytest.raises(DeadlineUnmetError, match=r"needs 1\.0 s") as refused:
        await engine.classify(frames(1), support, deadline=time.monotonic() + 0.5)
    assert refused.value.retry_after_s == pytest.approx(1.0)
    assert len(await engine.classify(frames(1), support)) == 1
    assert len(await engine.classify(frames(1), support, deadline=time.monotonic() + 5)) == 1


async def test_who_looks_on_and_fails_does_not_end_the_device(engine: Engine) -> None:
    told: list[Pass] = []

    def failing(done: Pass) -> None:
        told.append(done)
        raise RuntimeError("of the one who looks on")

    engine.watch_with(failing)
    support = await engine.encode_support(frames(4), [0, 0, 1, 1], None)
    assert len(await engine.classify(frames(2), support)) == 2
    assert sum(done.frames for done in told if done.works[0].kind == "classify") == 2 * 8
    assert len(await engine.classify(frames(1), support)) == 1


async def test_a_busy_tenant_does_not_keep_another_from_the_device(engine: Engine) -> None:
    support = await engine.encode_support(frames(4), [0, 0, 1, 1], None)
    order: list[str] = []

    def ask(tenant: str) -> "asyncio.Task[object]":
        asked = asyncio.create_task(engine.classify(frames(1), support, tenant=tenant))
        asked.add_done_callback(lambda _: order.append(tenant))
        return asked

    with device_held(engine):
        asked = [ask("busy") for _ in range(40)]
        await asyncio.sleep(0.05)
        asked.append(ask("other"))
        await asyncio.sleep(0.05)
    await asyncio.gather(*asked)
    assert order.index("other") < 4  # in the first batch, of 4 clips


async def test_a_failed_registration_does_no_more_slices(engine: Engine) -> None:
    told: list[int] = []

    def fail(done: int) -> None:
        told.append(done)
        raise ValueError("Broken.")

    with pytest.raises(EngineError):
        await engine.encode_support(frames(12), [0, 1] * 6, None, fail)
    await engine.encode_support(frames(2), [0, 1], None)
    assert told == [2]
    assert engine.dropped["failed"] >= 5


async def test_nothing_of_a_task_is_kept_by_the_engine(engine: Engine) -> None:
    """An idle task costs its supports, which the cache bounds, and nothing else."""
    support = await engine.encode_support(frames(4), [0, 0, 1, 1], None)
    await engine.classify(frames(2), support)
    await engine.encode_support(frames(4), [0, 0, 1, 1], None)  # the thread lets the last one go
    gone = weakref.ref(support.classes.prototype_NTE)
    del support
    for _ in range(100):
        await asyncio.sleep(0.01)
        if gone() is None:
            return
        gc.collect()
    raise AssertionError("Something still holds the supports of the task.")


@pytest.mark.parametrize("context", ["none", "support"])
@pytest.mark.parametrize("of_clip", [0.5, 1, 3])
async def test_supports_are_the_same_in_slices_of_any_size(context: str, of_clip: float) -> None:
    recognizer = tiny_recognizer(query_context=context)
    engine = Engine(recognizer, batch_frames=32)
    await engine.start()
    engine.forecast.slice_frames = int(of_clip * engine.model.frames)
    told: list[int] = []
    got = await engine.encode_support(frames(5), [0, 1, 0, 1, 1], None, told.append)
    await engine.close()
    with torch.inference_mode():
        want = recognizer.encode_support(recognizer.trunk(frames(5)), [0, 1, 0, 1, 1], None)
    close = {"atol": 1e-5, "rtol": 1e-5}
    torch.testing.assert_close(got.classes.prototype_NTE, want.classes.prototype_NTE, **close)
    assert told[-1] == 5
    for mine, theirs in zip(got.memories, want.memories, strict=True):
        assert (mine is None) == (theirs is None)
        if mine is not None and theirs is not None:
            torch.testing.assert_close(mine.keys_PHMW, theirs.keys_PHMW, **close)


async def test_a_query_waits_for_one_slice_which_is_shorter_than_itself() -> None:
    """A device that takes 10 ms a frame, and 16 clips to register, 1.3 s of work."""
    recognizer = tiny_recognizer(query_context="none")
    passed: list[int] = []
    trunk = recognizer.video.trunk

    def slowly(frames_BTHWC: torch.Tensor) -> torch.Tensor:
        passed.append(frames_BTHWC.shape[0] * frames_BTHWC.shape[1])
        time.sleep(0.01 * passed[-1])
        return trunk(frames_BTHWC)

    recognizer.video.trunk = slowly  # type: ignore[method-assign]
    engine = Engine(recognizer, batch_frames=32, slice_clips=0)
    await engine.start()
    support = await engine.encode_support(frames(2), [0, 1], None)
    registering = asyncio.create_task(engine.encode_support(frames(16), [0, 1] * 8, None))
    await asyncio.sleep(0.05)
    passed.clear()
    for _ in range(3):
        await engine.classify(frames(1), support)
    before = passed[: passed.index(8)]
    assert sum(before) <= 2  # a quarter of a clip
    assert not registering.done()
    await registering
    await engine.close()


async def test_text_goes_in_slices_too() -> None:
    engine = Engine(tiny_recognizer("task_adapter_pp"), batch_frames=32, slice_clips=1)
    await engine.start()
    labels = [f"label {number}" for number in range(40)]
    stages = [(f"{label} begins", f"{label} goes on", f"{label} ends") for label in labels]
    sizes: list[int] = []
    encode = engine._recognizer.encode_text
    engine._recognizer.encode_text = lambda given, of: (
        sizes.append(len(given)),
        encode(given, of),
    )[1]  # type: ignore[method-assign]
    text_NAE = await engine.encode_text(labels, stages)
    await engine.close()
    assert max(sizes) <= 16
    torch.testing.assert_close(text_NAE, encode(labels, stages), atol=1e-5, rtol=1e-5)
