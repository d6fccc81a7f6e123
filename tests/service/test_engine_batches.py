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
from service.engine.engine import Engine
from tests.held_device import device_held
from tests.model.tiny import clips, tiny_recognizer

CLIPS = int(os.environ.get("KSHOT_CLIPS", "24"))
BATCHES = int(os.environ.get("KSHOT_BATCHES", "12"))
EXACT = 1e-5  # design invariant 1, fp32, of scores: softmax over the task's labels
WAYS = (2, 3, 5)


@pytest.fixture(params=["compact", "none", "support", "prototype", "ted", "clip_fsar"])
async def engine(request: pytest.FixtureRequest) -> AsyncIterator[Engine]:
    match request.param:
        case "compact":
            recognizer = load_recognizer("compact")
        case "ted" | "clip_fsar" as preset:
            recognizer = tiny_recognizer(preset)
        case context:
            recognizer = tiny_recognizer(query_context=context)
    engine = Engine(recognizer, batch_frames=64)
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
