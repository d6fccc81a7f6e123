"""Remembered queries, in a SQLite file and in a real Redis alike: bounded, and gone in time."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from service.stores.inboxes.kept import Bounds, Remembered
from service.stores.protocol import TaskStore
from service.stores.records import TaskRecord
from service.stores.redis import RedisStore
from service.stores.sqlite import SqliteStore
from tests.redis_server import RedisServer, redis_server
from tests.stored_tasks import a_task, pictures_of

MANY = Bounds(100, 2**20)


class Clock:
    ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["sqlite", "redis"])
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, clock: Clock
) -> AsyncIterator[TaskStore]:
    opened: TaskStore
    if request.param == "sqlite":
        opened = await SqliteStore.open(tmp_path / "kshot.db", now=clock)
    else:
        opened = await RedisStore.open(request.getfixturevalue("server").url, now=clock)
    yield opened
    await opened.close()


def a_query(place: int = 0, size: int = 10, life_s: float = 100.0) -> Remembered:
    at = time.time() + place / 1000
    query_id = f"q{secrets.token_hex(4)}"
    return Remembered(
        query_id=query_id,
        at=at,
        until=at + life_s,
        revision=1,
        model="m",
        clip=replace(a_task().clips[0], clip_id=query_id),
        ranking=(("wave", 0.75), ("jump", 0.25)),
        nearest=0.5,
        threshold=0.25,
        unknown=False,
        size=size,
    )


async def new_task(store: TaskStore, **fields: float) -> TaskRecord:
    record = a_task(**fields)  # type: ignore[arg-type]
    await store.create(record, pictures_of(record))
    return record


async def ids(store: TaskStore, task_id: str) -> set[str]:
    return {query.query_id for query in await store.inbox.list(task_id)}


async def test_a_query_comes_back_as_it_was_and_is_removed_once(store: TaskStore) -> None:
    task_id, query = (await new_task(store)).task_id, a_query()
    pictures = (b"one", b"", bytes(range(256)))
    assert await store.inbox.add(task_id, query, pictures, MANY)
    assert await store.inbox.list(task_id) == [query]
    assert await store.inbox.get(task_id, query.query_id) == (query, pictures)
    assert await store.inbox.get(task_id, "q0") is None
    assert await store.inbox.remove(task_id, query.query_id)
    assert not await store.inbox.remove(task_id, query.query_id)
    assert await store.inbox.list(task_id) == []
    assert not await store.inbox.add("nobody", query, pictures, MANY)


@pytest.mark.parametrize(
    ("sizes", "keep", "most", "stay"),
    [
        ([1, 1, 1, 1], 3, 100, 3),  # as many as are kept
        ([10, 10, 10, 10], 9, 25, 2),  # as many bytes
        ([1, 30, 1, 1], 9, 25, 2),  # what is older than one that does not fit goes too
        ([10, 10, 15], 9, 25, 2),  # just so many bytes
        ([1, 1, 26], 9, 25, 0),  # one that is alone too large leaves room for nothing
    ],
)
async def test_the_oldest_go_when_there_are_too_many_or_too_large_ones(
    store: TaskStore, sizes: list[int], keep: int, most: int, stay: int
) -> None:
    task_id = (await new_task(store)).task_id
    queries = [a_query(place, size) for place, size in enumerate(sizes)]
    added = [
        await store.inbox.add(task_id, query, (b"x" * query.size,), Bounds(keep, most))
        for query in queries
    ]
    assert added[-1] == (stay > 0)
    wanted = {query.query_id for query in queries[len(queries) - stay :]}
    assert await ids(store, task_id) == wanted


async def test_queries_go_in_their_time_and_with_their_task(store: TaskStore, clock: Clock) -> None:
    record = await new_task(store)
    task_id, short = record.task_id, a_query(life_s=10)
    await store.inbox.add(task_id, short, (b"x",), MANY)
    clock.ahead = 11
    assert await ids(store, task_id) == set()
    assert await store.inbox.get(task_id, short.query_id) is None
    query = a_query()
    await store.inbox.add(task_id, query, (b"x",), MANY)
    ends = replace(record, revision=2, expires_at=clock() + 0.05)
    await store.replace(ends, expected_revision=1, pictures={})
    assert await ids(store, task_id) == {query.query_id}
    clock.ahead += 1
    if isinstance(store, SqliteStore):
        await store.sweep()
    else:
        await asyncio.sleep(0.06)
    clock.ahead -= 1
    assert await ids(store, task_id) == set()
    other = (await new_task(store)).task_id
    await store.inbox.add(other, query, (b"x",), MANY)
    assert await store.delete(other)
    assert await ids(store, other) == set()
    assert await store.inbox.get(other, query.query_id) is None
