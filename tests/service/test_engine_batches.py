"""Invariant 1 in the engine: a clip scores the same alone and in any batch of many tasks.

KSHOT_CLIPS sets the number of clips (default 24; the figure of the closing note used 200), and
KSHOT_BATCHES that of random mixed batches (default 12; 100).
"""

import asyncio
import os
import random
from collections.abc import AsyncIterator

import numpy as np
import pytest

from model.checkpoint import load_recognizer
from model.episode import EncodedSupport
from service.engine.contexts import SupportSizes
from service.engine.engine import Engine
from tests.held_device import device_held
from tests.model.tiny import clips, tiny_recognizer

CLIPS = int(os.environ.get("KSHOT_CLIPS", "24"))
BATCHES = int(os.environ.get("KSHOT_BATCHES", "12"))
EXACT = 1e-5  # design invariant 1, fp32, of scores: softmax over the task's labels
WAYS = (2, 3, 5)


@pytest.fixture(params=["compact", "support", "prototype", "less than its own"])
async def engine(request: pytest.FixtureRequest) -> AsyncIterator[Engine]:
    match request.param:
        case "compact":
            engine = Engine(load_recognizer("compact"), batch_frames=64)
        case "less than its own":  # the largest tasks attend to class means, or to themselves
            probe = Engine(tiny_recognizer(query_context="support"), batch_frames=64)
            await probe.start()
            assert probe._contexts is not None
            middle = probe._contexts.sizes.bytes("prototype", 3, 6)
            await probe.close()
            recognizer = tiny_recognizer(query_context="support")
            engine = Engine(recognizer, batch_frames=64, support_bytes=2 * middle)
        case context:
            engine = Engine(tiny_recognizer(query_context=context), batch_frames=64)
    await engine.start()
    yield engine
    await engine.close()


def frames(engine: Engine, count: int, seed: int) -> np.ndarray:
    return clips(count, seed=seed, size=engine.model.size).numpy()


async def tasks_of(engine: Engine) -> list[EncodedSupport]:
    return [
        await engine.encode_support(
            frames(engine, 2 * ways, seed=ways), [clip // 2 for clip in range(2 * ways)], None
        )
        for ways in WAYS
    ]


def shares(logits_N: list[float]) -> np.ndarray:
    powers_N = np.exp(np.array(logits_N) - max(logits_N))
    return powers_N / powers_N.sum()


async def test_a_clip_scores_the_same_alone_and_in_mixed_batches(engine: Engine) -> None:
    tasks = await tasks_of(engine)
    count = CLIPS if engine.model.size < 100 else max(4, CLIPS // 4)
    queries = frames(engine, count, seed=9)
    of = [place % len(tasks) for place in range(count)]
    alone = [
        shares((await engine.classify([query], tasks[task]))[0].scores.logits_N)
        for query, task in zip(queries, of, strict=True)
    ]
    order = random.Random(0)
    for _ in range(BATCHES if engine.model.size < 100 else max(1, BATCHES // 6)):
        chosen = order.sample(range(count), order.randint(2, min(count, 8)))
        with device_held(engine):  # so that they are there together
            asked = [
                asyncio.create_task(
                    engine.classify([queries[place]], tasks[of[place]], tenant=str(place % 2))
                )
                for place in chosen
            ]
            await asyncio.sleep(0.01)
        for place, answers in zip(chosen, await asyncio.gather(*asked), strict=True):
            got = shares(answers[0].scores.logits_N)
            np.testing.assert_allclose(got, alone[place], atol=EXACT, rtol=0)
    assert len({tuple(found) for found in alone}) > 1


async def test_a_task_takes_the_dearest_context_that_fits() -> None:
    sizes = SupportSizes(entry=1000, class_=10, clip=0)
    own = tiny_recognizer(query_context="support")
    engine = Engine(own, batch_frames=64, support_bytes=20_000, support_share=0.5)
    await engine.start()
    assert engine._contexts is not None
    measured = engine._contexts.sizes
    for classes in ([0, 1], [0, 0, 1, 1, 1, 2]):
        text = None
        task = await engine.encode_support(frames(engine, len(classes), 1), classes, text)
        context = engine.context_of(classes)
        told = measured.bytes(context, len(set(classes)), len(classes))
        text_bytes = len(set(classes)) * 3 * 4 * task.prototype_NTE.shape[-1]
        assert task.bytes == told - (text_bytes if engine.model.has_text else 0)
    await engine.close()
    assert sizes.bytes("support", 2, 9) == 9020
    assert sizes.bytes("prototype", 2, 9) == 2020
    assert sizes.bytes("self", 2, 9) == 20


async def test_a_large_task_attends_to_less_and_every_rebuild_to_the_same() -> None:
    recognizer = tiny_recognizer(query_context="support")
    plenty = Engine(recognizer, batch_frames=64, support_bytes=2**30)
    await plenty.start()
    assert plenty._contexts is not None
    sizes = plenty._contexts.sizes
    budget = 2 * sizes.bytes("support", 2, 4)
    few = Engine(recognizer, batch_frames=64, support_bytes=budget, support_share=0.5)
    await few.start()
    small, large = [0, 0, 1, 1], [0, 1] * 8
    assert plenty.context_of(large) == "support"
    assert (few.context_of(small), few.context_of(large)) == ("support", "prototype")
    assert few.context_of(list(range(30)) * 2) == "self"
    query = frames(few, 1, 3)
    twice = [
        (
            await few.classify(
                query,
                await few.encode_support(frames(few, 16, 2), large, None, work=work),
            )
        )[0].scores.logits_N
        for work in ("register", "rebuild")
    ]
    assert twice[0] == pytest.approx(twice[1], abs=1e-5)
    dear = await plenty.classify(
        query, await plenty.encode_support(frames(few, 16, 2), large, None)
    )
    assert dear[0].scores.logits_N != pytest.approx(twice[0], abs=1e-5)
    await few.close()
    await plenty.close()


async def test_a_cache_of_nothing_limits_no_task() -> None:
    engine = Engine(tiny_recognizer(query_context="support"), batch_frames=64, support_bytes=0)
    await engine.start()
    assert engine.context_of([0, 1] * 100) == "support"
    await engine.close()
