"""The device thread: queries go first, nobody's fault is another's, and it stops cleanly."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Generator

import numpy as np
import pytest

from model.errors import MethodError
from model.recognizer import EncodedSupport
from service.engine.device_thread import Job
from service.engine.engine import Engine
from service.engine.support_cache import SupportCache, SupportKey
from service.refusals import DeadlineError, EngineError, NotReadyError
from tests.model.tiny import clips, tiny_recognizer


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    engine = Engine(tiny_recognizer(), batch_clips=4, slice_clips=2)
    await engine.start()
    yield engine
    await engine.close()


def frames(count: int, seed: int = 0) -> np.ndarray:
    return clips(count, seed=seed).numpy()


async def hold(engine: Engine) -> tuple[threading.Event, "asyncio.Future[None]"]:
    """Occupy the device until the event is set."""
    free = threading.Event()
    begun = threading.Event()

    def steps() -> Generator[None, None, None]:
        begun.set()
        free.wait(20)
        yield

    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    engine._thread.put(Job(steps(), done))
    await asyncio.to_thread(begun.wait, 20)
    return free, done


async def test_queries_go_between_the_slices_of_a_registration(engine: Engine) -> None:
    support = await engine.encode_support(frames(4), [0, 0, 1, 1], None)
    free, _ = await hold(engine)
    order: list[str] = []
    registering = asyncio.create_task(
        engine.encode_support(
            frames(12), [0, 1] * 6, None, lambda done: order.append(f"slice {done}")
        )
    )
    await asyncio.sleep(0.05)
    querying = asyncio.create_task(engine.classify(frames(1), support))
    querying.add_done_callback(lambda _: order.append("query"))
    await asyncio.sleep(0.05)
    free.set()
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
    foreign = EncodedSupport(
        support.prototype_NTE, support.context, None, support.counts, "other weights"
    )
    free, _ = await hold(engine)
    good = [asyncio.create_task(engine.classify(frames(1, seed), support)) for seed in range(3)]
    bad = asyncio.create_task(engine.classify(frames(1), foreign))
    await asyncio.sleep(0.05)
    free.set()
    assert [len(await answer) for answer in good] == [1, 1, 1]
    with pytest.raises(EngineError):
        await bad


async def test_a_query_nobody_waits_for_never_reaches_the_device(engine: Engine) -> None:
    support = await engine.encode_support(frames(4), [0, 0, 1, 1], None)
    free, _ = await hold(engine)
    query = asyncio.create_task(engine.classify(frames(3), support))
    await asyncio.sleep(0.05)
    query.cancel()
    await asyncio.gather(query, return_exceptions=True)
    assert engine._thread.waiting == 3
    free.set()
    await engine.classify(frames(1), support)
    assert engine._thread.waiting == 0


async def test_closing_fails_what_waits_and_refuses_what_comes() -> None:
    engine = Engine(tiny_recognizer(), batch_clips=4, slice_clips=2)
    await engine.start()
    support = await engine.encode_support(frames(4), [0, 0, 1, 1], None)
    free, _ = await hold(engine)
    waiting = asyncio.create_task(engine.classify(frames(1), support))
    await asyncio.sleep(0.05)
    closing = asyncio.create_task(engine.close())
    await asyncio.sleep(0.05)
    free.set()
    await closing
    with pytest.raises(EngineError, match="stopped"):
        await waiting
    with pytest.raises(EngineError, match="stopped"):
        await engine.classify(frames(1), support)
    assert engine.silent_s == float("inf")


def test_a_transductive_method_is_not_served() -> None:
    for method in (
        tiny_recognizer(query_context="joint"),
        tiny_recognizer(align="joint"),
    ):
        with pytest.raises(MethodError, match="see each other"):
            Engine(method, batch_clips=4, slice_clips=2)


@pytest.fixture
async def support(engine: Engine) -> EncodedSupport:
    return await engine.encode_support(frames(4), [0, 0, 1, 1], None)


def key(task_id: str, revision: int = 1) -> SupportKey:
    return SupportKey(task_id, revision, "weights")


async def test_the_cache_keeps_the_most_recent_within_its_bytes(support: EncodedSupport) -> None:
    cache = SupportCache(2 * support.bytes)
    for name in ("a", "b"):
        cache.put(key(name), support)
    assert cache.peek(key("a"))
    cache.put(key("c"), support)
    assert [bool(cache.peek(key(name))) for name in "abc"] == [True, False, True]
    assert cache.bytes == 2 * support.bytes
    cache.forget("a")
    assert cache.bytes == support.bytes


async def test_supports_are_built_once_for_all_who_wait(support: EncodedSupport) -> None:
    cache = SupportCache(support.bytes)
    builds = 0

    async def build() -> EncodedSupport:
        nonlocal builds
        builds += 1
        await asyncio.sleep(0.01)
        return support

    first = asyncio.create_task(cache.get(key("a"), build))
    others = [asyncio.create_task(cache.get(key("a"), build)) for _ in range(5)]
    await asyncio.sleep(0)
    first.cancel()  # who leaves takes nothing from the others
    assert all(found is support for found in await asyncio.gather(*others))
    assert builds == 1


async def test_a_failed_build_is_tried_again(support: EncodedSupport) -> None:
    cache = SupportCache(support.bytes)

    async def fail() -> EncodedSupport:
        raise EngineError("Broken.")

    async def build() -> EncodedSupport:
        return support

    with pytest.raises(EngineError):
        await cache.get(key("a"), fail)
    assert await cache.get(key("a"), build) is support


async def test_forgetting_a_task_ends_its_build(support: EncodedSupport) -> None:
    cache = SupportCache(support.bytes)

    async def never() -> EncodedSupport:
        await asyncio.sleep(60)
        return support

    waiting = asyncio.create_task(cache.get(key("a"), never))
    await asyncio.sleep(0.01)
    cache.forget("a")
    with pytest.raises(NotReadyError):
        await waiting


async def test_older_revisions_are_forgotten_alone(support: EncodedSupport) -> None:
    cache = SupportCache(9 * support.bytes)
    for revision in (1, 2, 3):
        cache.put(key("a", revision), support)
    cache.forget("a", below_revision=3)
    assert [bool(cache.peek(key("a", revision))) for revision in (1, 2, 3)] == [False, False, True]


async def test_work_past_its_deadline_is_refused(engine: Engine, support: EncodedSupport) -> None:
    past = time.monotonic() - 1
    with pytest.raises(DeadlineError):
        await engine.classify(frames(1), support, tenant="a", deadline=past)
    with pytest.raises(DeadlineError):
        await engine.encode_support(frames(2), [0, 1], None, work="rebuild", deadline=past)
    assert engine.drain_rate > 0
    assert engine.queued_frames == 0
