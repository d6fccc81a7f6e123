"""After a restart: supports come from the store, are never stale, and are ready before a request.

Each `life` is a service without HTTP: a real store, a real engine, and what is between them.
"""

import asyncio
import contextlib
import logging
import shutil
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from model.backbones.words import split_words
from model.episode import EncodedSupport
from model.media.keeping import decode_pictures, encode_pictures
from model.methods import METHODS
from model.recognizer import Recognizer
from model.text import template_stages
from service.app import create_app
from service.engine.engine import Engine
from service.engine.runtimes.protocol import supports_from
from service.engine.runtimes.pytorch import TorchRuntime
from service.engine.support_cache import SupportCache
from service.errors import DeadlineUnmetError
from service.http.problems import TIMEOUT_HEADER
from service.settings import Settings
from service.stores.opening import open_store
from service.stores.protocol import TaskStore
from service.stores.records import LabelRecord, TaskRecord
from service.tasks.allowance import NOTHING, Credits, Deadline, Ledger
from service.tasks.encoding import Preparation
from service.tasks.kept_supports import KeptSupports
from service.tasks.supports import Supports
from service.tasks.texts import TaskTexts
from service.tasks.warming import Warming
from tests.devices import Device, slow
from tests.held_device import device_held
from tests.model.test_kept_support import same
from tests.model.tiny import TOWERS, WORDS, clips, tiny_recognizer
from tests.redis_server import redis_server
from tests.serving import moving_clip, problem, query_files, register, scores, serving_app
from tests.stored_tasks import a_task

MIB = 2**20
CLIPS = 6


@dataclass(frozen=True, slots=True)
class Life:
    """What runs between a start and a stop."""

    store: TaskStore
    engine: Engine
    supports: Supports
    warming: Warming

    @property
    def encoded_again(self) -> bool:
        """Whether the device has rebuilt anything in this life."""
        return self.engine.cost.rate("rebuild") > 0

    async def support(self, record: TaskRecord, deadline: Deadline | None = None) -> EncodedSupport:
        return await self.supports.get(record, 20.0, deadline)


def nothing(_: int) -> None:
    """Let a device be as fast as it is."""


@asynccontextmanager
async def life(
    url: str,
    recognizer: Recognizer | None = None,
    *,
    kept_bytes: int = MIB,
    cache_bytes: int = 64 * MIB,
    before: Callable[[int], None] = nothing,
) -> AsyncIterator[Life]:
    runtime = TorchRuntime(recognizer or tiny_recognizer("task_adapter"))
    device = Device(runtime, before)
    store = await open_store(url)
    engine = Engine(device, batch_frames=32, slice_clips=1)
    await engine.start()
    texts = TaskTexts(engine, store, None, ttl_s=60.0)
    kept = KeptSupports(
        store=store,
        engine=engine,
        texts=texts,
        made_by=supports_from(runtime),
        most_bytes=kept_bytes,
    )
    supports = Supports(
        store=store, engine=engine, cache=SupportCache(cache_bytes), texts=texts, kept=kept
    )
    warming = Warming(store, supports)
    try:
        yield Life(store, engine, supports, warming)
    finally:
        await warming.close()
        await supports.close()
        await engine.close()
        await store.close()


async def registered(now: Life, seed: int = 0) -> TaskRecord:
    """Register a task as the use case does, past decoding."""
    count = now.engine.model.stages
    labels = tuple(
        LabelRecord(label=label, stages=template_stages(label, count), text_source="template")
        for label in ("wave", "jump")
    )
    record = replace(a_task(clips=CLIPS), labels=labels)
    given = clips(CLIPS, seed=seed).numpy()
    pictures = {
        clip.clip_id: encode_pictures(frames)
        for clip, frames in zip(record.clips, given, strict=True)
    }
    frames: dict[str, np.ndarray] = {name: decode_pictures(kept) for name, kept in pictures.items()}
    await now.store.create(record, pictures)
    credits = Credits(Ledger(NOTHING, share=1.0), "", NOTHING)
    preparation = Preparation(CLIPS)
    await now.supports.prepare(record, frames, preparation, 20.0, credits)
    assert not preparation.failed
    return record


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:{tmp_path / 'kshot.db'}"


@pytest.fixture(params=["sqlite", "redis"])
def either(request: pytest.FixtureRequest, tmp_path: Path, url: str) -> Iterator[str]:
    if request.param == "sqlite":
        yield url
        return
    with redis_server(tmp_path / "redis") as server:
        yield server.url


def speaking(preset: str) -> Recognizer:
    """Make a tiny method whose text tower knows the words of its prompt, too."""
    assert TOWERS.text is not None
    words = {*WORDS, *split_words(METHODS[preset].prompt.format(label="", stage=""))}
    text = replace(TOWERS.text, words=tuple(sorted(words)))
    return tiny_recognizer(preset, backbone=replace(TOWERS, text=text))


@pytest.mark.parametrize("preset", ["task_adapter", "task_adapter_pp", "clip_fsar", "ted"])
async def test_supports_of_the_last_life_are_taken_as_they_were(url: str, preset: str) -> None:
    recognizer = speaking(preset)
    async with life(url, recognizer) as first:
        record = await registered(first)
        made = await first.support(record)
        assert (made.text_NAE is not None) == recognizer.has_text
        assert made.text_inside == recognizer.needs_text
    async with life(url, recognizer) as second:
        assert same(await second.support(record), made)
        assert not second.encoded_again


async def test_either_store_keeps_them(either: str) -> None:
    async with life(either) as first:
        record = await registered(first)
        made = await first.support(record)
    async with life(either) as second:
        assert same(await second.support(record), made)
        assert not second.encoded_again


async def test_what_is_larger_than_the_limit_is_not_kept_and_encoded_again(url: str) -> None:
    async with life(url, kept_bytes=100) as first:
        record = await registered(first)
        made = await first.support(record)
        assert made.bytes > 100
    async with life(url) as second:
        again = await second.support(record)
        assert second.encoded_again
        assert np.allclose(again.classes.prototype_NTE, made.classes.prototype_NTE, atol=1e-5)
    async with life(url) as third:  # what was encoded again is kept
        assert same(await third.support(record), again)
        assert not third.encoded_again


async def test_supports_of_other_weights_or_another_calibration_are_not_taken(url: str) -> None:
    recognizer = tiny_recognizer("task_adapter")
    async with life(url, recognizer) as first:
        record = await registered(first)
    calibration = recognizer.calibration
    recognizer.calibrate(calibration.model_copy(update={"mean": (0.5,) * 32}))
    async with life(url, recognizer) as second:
        assert (await second.support(record)).classes.centre_NE is not None
        assert second.encoded_again
    others = tiny_recognizer("task_adapter", seed=1)
    others.fingerprint = "other weights"
    async with life(url, others) as third:
        assert (await third.support(record)).fingerprint == "other weights"
        assert third.encoded_again


async def test_damaged_supports_are_encoded_again_and_kept_anew(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = url.removeprefix("sqlite:")
    async with life(url) as first:
        record = await registered(first)
        made = await first.support(record)
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE supports SET value = substr(value, 1, length(value) - 9)")
    async with life(url) as second:
        assert same(await second.support(record), made)
        assert second.encoded_again
    assert "damaged" in caplog.text
    async with life(url) as third:
        assert same(await third.support(record), made)
        assert not third.encoded_again


async def test_supports_that_are_sealed_and_nonsense_are_encoded_again(url: str) -> None:
    async with life(url) as first:
        record = await registered(first)
        other = await registered(first, seed=1)
        made = await first.support(record)
        name = first.supports.kept._name(record)
        foreign = await first.engine.write_support(
            replace(await first.support(other), fingerprint="another")
        )
        await asyncio.sleep(0.1)
        for nonsense in (b"", b"pickle", foreign):
            await first.store.put_supports(record, name, nonsense)
            assert await first.supports.kept.read(record) is None
    async with life(url) as second:
        assert same(await second.support(record), made)
        assert second.encoded_again


@pytest.mark.parametrize("preset", ["clip_fsar", "task_adapter_pp"])
async def test_late_text_makes_kept_supports_stale_where_it_is_part_of_them(
    url: str, preset: str
) -> None:
    recognizer = speaking(preset)
    count = recognizer.config.stages
    async with life(url, recognizer) as first:
        record = await registered(first)
        made = await first.support(record)
        better = tuple(
            LabelRecord(
                label=old.label, stages=template_stages(old.label)[::-1][:count], text_source="llm"
            )
            for old in record.labels
        )
        newer = replace(record, revision=2, labels=better)
        await first.store.replace(newer, expected_revision=1)
    async with life(url, recognizer) as second:
        found = await second.support(newer)
        assert second.encoded_again
        assert not same(found.text_NAE, made.text_NAE)
        assert same(found.classes, made.classes) != recognizer.needs_text
        assert same(found.text_NAE, await second.supports.texts.encode(newer.labels, ""))


async def test_what_could_not_be_kept_is_told_and_served_all_the_same(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = url.removeprefix("sqlite:")
    async with life(url) as first:
        record = await registered(first)
        shutil.move(path, f"{path}.away")
        first.supports.kept.keep(record, await first.support(record))
        await asyncio.wait(first.supports.kept._writing)
        shutil.move(f"{path}.away", path)
    assert f"The supports of task {record.task_id} were not kept" in caplog.text


async def test_a_deleted_task_leaves_no_supports(url: str) -> None:
    async with life(url) as first:
        record = await registered(first)
        first.supports.end_work(record.task_id)
        await first.store.delete(record.task_id)
        first.supports.forget(record.task_id)
    with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:"))) as db:
        assert db.execute("SELECT count(*) FROM supports").fetchone() == (0,)


async def warmed(now: Life) -> None:
    """Start warming, and wait until it has ended."""
    now.warming.start()
    await asyncio.wait_for(asyncio.shield(now.warming._running[0]), 20)


def at_hand(now: Life, *given: TaskRecord) -> list[bool]:
    return [now.supports._key(one) in now.supports.cache._entries for one in given]


async def test_the_last_used_tasks_are_ready_before_anybody_asks(
    either: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with life(either) as first:
        one, two, three = [await registered(first, seed) for seed in range(3)]
        await first.support(one)  # is used again, after the others
        size = (await first.support(one)).bytes
    async with life(either, cache_bytes=int(2.5 * size)) as second:
        await warmed(second)
        assert at_hand(second, one, two, three) == [True, False, True]
        assert not second.encoded_again
        assert "Made 2 of 3 recent tasks ready" in caplog.text
        second.supports.cache.max_bytes = size  # what was used last stays longest
        second.supports.cache._trim()
        assert at_hand(second, one, three) == [True, False]


async def test_warming_encodes_what_is_not_kept_and_passes_over_what_it_cannot(url: str) -> None:
    async with life(url, kept_bytes=0) as first:
        one, gone, other = [await registered(first, seed) for seed in range(3)]
    smaller = tiny_recognizer("task_adapter", frames=4)
    async with life(url, smaller) as second:
        await warmed(second)  # no task fits this checkpoint
        assert at_hand(second, one, gone, other) == [False] * 3
        await second.store.delete(gone.task_id)
    async with life(url) as third:
        await warmed(third)
        assert at_hand(third, one, gone, other) == [True, False, True]
        assert third.encoded_again


async def test_without_memory_for_supports_nothing_is_warmed(url: str) -> None:
    async with life(url) as first:
        record = await registered(first)
    async with life(url, cache_bytes=0) as second:
        await warmed(second)
        assert at_hand(second, record) == [False]


async def test_stopping_does_not_wait_for_warming(url: str) -> None:
    async with life(url, kept_bytes=0) as first:
        for seed in range(3):
            await registered(first, seed)
    async with life(url, before=slow(0.2)) as second:  # 3 tasks of 6 clips: 3.6 s
        second.warming.start()
        await asyncio.sleep(0.3)
        begun = time.monotonic()
    assert time.monotonic() - begun < 1.5


async def test_who_would_miss_the_deadline_is_told_at_once_and_may_come_back(url: str) -> None:
    async with life(url, kept_bytes=0) as first:
        record = await registered(first)
    async with life(url, before=slow(0.15)) as second:  # 6 clips: 0.9 s
        begun = time.monotonic()
        with pytest.raises(DeadlineUnmetError, match=r"6 support clips .* encoded again") as told:
            await second.support(record, Deadline.after(0.5))
        assert time.monotonic() - begun < 0.3
        needed_s = told.value.retry_after_s
        assert needed_s is not None
        assert 0.5 < needed_s < 3.0
        await asyncio.sleep(needed_s)
        await second.support(record, Deadline.after(0.4))  # it went on meanwhile
        assert time.monotonic() - begun < needed_s + 0.6


async def test_who_has_the_time_waits_for_a_rebuild(url: str) -> None:
    async with life(url, kept_bytes=0) as first:
        record = await registered(first)
    async with life(url, before=slow(0.05)) as second:
        await second.support(record, Deadline.after(10.0))
        assert second.encoded_again


async def test_a_rebuild_that_is_slower_than_it_was_is_noticed_while_it_runs(url: str) -> None:
    late = [0.0]
    async with life(url, kept_bytes=0) as first:
        record = await registered(first)
    async with life(url, before=lambda _: time.sleep(late[0])) as second:
        late[0] = 0.4  # 2.4 s, and the start saw nothing of it
        begun = time.monotonic()
        with pytest.raises(DeadlineUnmetError):
            await second.support(record, Deadline.after(1.8))
        assert time.monotonic() - begun < 1.4


def test_a_client_is_told_when_to_come_back(settings: Settings) -> None:
    query, app = query_files(moving_clip(3)), create_app(settings)
    with serving_app(app) as client:
        given = {"jump": [moving_clip(1), moving_clip(2)], "wave": [moving_clip(9)]}
        url = f"/tasks/{register(client, given)['id']}/classify"
        before = client.post(url, files=query).json()
        supports: Supports = app.state.service.tasks.supports
        supports.engine.forecast.alone_s = 5.0  # as if the start had found a slow device
        with contextlib.closing(sqlite3.connect(settings.store.removeprefix("sqlite:"))) as db, db:
            db.execute("DELETE FROM supports")
        supports.cache.free()
        asked = {"files": query, "headers": {TIMEOUT_HEADER: "4000"}}
        with device_held(supports.engine):
            refused = client.post(url, **asked)
        told = problem(refused, 503, "deadline-unmet")
        assert told["retryable"]
        assert "which takes 15.0 s more" in told["detail"].replace("14.9", "15.0")
        assert TIMEOUT_HEADER in told["detail"]
        assert refused.headers["retry-after"] == "15"
        wait_until(supports.encoding.idle.is_set)
        assert scores(client.post(url, **asked).json()) == scores(before)


def wait_until(reached: Callable[[], bool]) -> None:
    begun = time.monotonic()
    while not reached():
        assert time.monotonic() - begun < 20
        time.sleep(0.02)
