"""A task whose encoded supports exceed the cache's budget is refused before it is encoded."""

from collections.abc import AsyncIterator

import numpy as np
import pytest

from model.config.matching import TrxMatcher
from service.engine.engine import Engine
from service.errors import TaskTooLargeError
from tests.model.tiny import LABELS, clips, tiny_recognizer, tiny_text

TRX = TrxMatcher(width=16)
METHODS = {
    "none": {"query_context": "none"},
    "support": {"query_context": "support"},
    "prototype": {"query_context": "prototype"},
    "trx": {"matcher": TRX, "fusion": "video"},
    "trx with context": {"matcher": TRX, "fusion": "video", "query_context": "support"},
    "two stages": {"stages": 2},
    "no text": {"fusion": "video"},
    "clip_fsar": {"preset": "clip_fsar"},
    "ted": {"preset": "ted"},
}
EPISODES = [[0, 1], [0, 0, 1, 1, 1, 2], [0, 1] * 5, [0, 1, 2, 3]]


@pytest.fixture(params=METHODS)
async def engine(request: pytest.FixtureRequest) -> AsyncIterator[Engine]:
    engine = Engine(tiny_recognizer(**METHODS[request.param]), batch_frames=64, support_bytes=1)
    await engine.start()
    yield engine
    await engine.close()


def frames(count: int) -> np.ndarray:
    return clips(count).numpy()


@pytest.mark.parametrize("classes", EPISODES, ids=str)
async def test_the_estimate_is_the_bytes_of_really_encoded_supports(
    engine: Engine, classes: list[int]
) -> None:
    text = tiny_text(engine._recognizer, LABELS[: max(classes) + 1])  # type: ignore[arg-type]
    task = await engine.encode_support(frames(len(classes)), classes, text)
    assert engine._support_size.of(classes) == task.bytes


async def test_a_task_larger_than_the_budget_is_refused_with_limit_and_remedy() -> None:
    recognizer = tiny_recognizer(query_context="support")
    probe = Engine(recognizer, batch_frames=64)
    await probe.start()
    limit = probe._support_size.of([0, 0, 1, 1])
    await probe.close()
    engine = Engine(recognizer, batch_frames=64, support_bytes=limit)
    await engine.start()
    engine.check_size([0, 0, 1, 1])
    engine.check_size([0, 1])
    with pytest.raises(TaskTooLargeError) as refused:
        engine.check_size([0, 0, 0, 1, 1])
    await engine.close()
    assert f"the limit is {limit:,}" in str(refused.value)
    assert "register fewer clips or labels" in str(refused.value)
    assert "KSHOT_SUPPORT_CACHE_BYTES" in str(refused.value)


async def test_a_budget_of_nothing_refuses_no_task() -> None:
    engine = Engine(tiny_recognizer(query_context="support"), batch_frames=64, support_bytes=0)
    await engine.start()
    engine.check_size([0, 1] * 10_000)
    await engine.close()


async def test_with_class_means_as_context_a_clip_adds_its_features_alone() -> None:
    recognizer = tiny_recognizer(query_context="prototype")
    engine = Engine(recognizer, batch_frames=64, support_bytes=10**6)
    await engine.start()
    support = await engine.encode_support(clips(3).numpy(), [0, 1, 1], None)
    assert support.clips is not None
    of_clip = support.clips.features_STE[0].nbytes
    size = engine._support_size
    assert size.of([0, 1] * 100) - size.of([0, 1]) == 198 * of_clip
    await engine.close()
