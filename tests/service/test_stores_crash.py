"""Killed at random moments, 50 times a store: nothing acknowledged is lost, nothing half listed."""

import asyncio
import contextlib
import random
import sqlite3
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from service.stores.errors import StoreError
from service.stores.opening import open_store
from service.stores.protocol import TaskStore
from tests.forked import CONTEXT, START_S
from tests.redis_server import redis_server
from tests.stored_tasks import a_task, create_for_ever, pictures_of

KILLS = 50
PICTURE_BYTES = 30_000
LONGEST_S = 0.15  # from the first acknowledged create to the kill


class Creator:
    """A process that creates tasks in a loop and says which were acknowledged."""

    def __init__(self, url: str, seed: int) -> None:
        self.heard: Connection
        self.heard, said = CONTEXT.Pipe(duplex=False)
        self.process: BaseProcess = CONTEXT.Process(
            target=create_for_ever, args=(url, said, seed, PICTURE_BYTES), daemon=True
        )
        self.process.start()
        said.close()
        assert self.heard.poll(START_S), "the creating process did not start"
        assert self.heard.recv() == "open"

    def kill(self) -> None:
        self.process.kill()
        self.process.join()

    def acknowledged(self) -> list[str]:
        """Return the ids that arrived before the process ended."""
        ids: list[str] = []
        while True:
            try:
                ids.append(self.heard.recv())
            except EOFError:
                self.heard.close()
                return ids


async def listed(store: TaskStore) -> list[str]:
    ids: list[str] = []
    cursor: str | None = None
    while True:
        page, cursor = await store.list(limit=200, cursor=cursor)
        ids += [record.task_id for record in page]
        if cursor is None:
            return ids


async def check(url: str, acknowledged: set[str], known: set[str]) -> set[str]:
    """Assert that every acknowledged task is there and every new one whole; return all ids."""
    store = await open_store(url)
    try:
        ids = await listed(store)
        assert len(set(ids)) == len(ids)
        assert acknowledged <= set(ids), "an acknowledged task is lost"
        for task_id in set(ids) - known:
            record = await store.get(task_id)
            assert len(record.clips) == len(a_task().clips)
            assert await store.pictures(task_id) == pictures_of(record, PICTURE_BYTES)
        return set(ids)
    finally:
        await store.close()


def survive(url: str, kill: Callable[[Creator], None], leftovers: Callable[[], int]) -> None:
    """Kill 50 times, check after each; at the end, that the kills hit creates in their middle."""
    rng = random.Random(7)
    acknowledged: set[str] = set()
    known: set[str] = set()
    interrupted = 0
    for round_number in range(KILLS):
        creator = Creator(url, seed=round_number)
        assert creator.heard.poll(START_S), "no create was acknowledged"
        time.sleep(rng.uniform(0.0, LONGEST_S))
        kill(creator)
        acknowledged |= set(creator.acknowledged())
        interrupted += leftovers()
        known = asyncio.run(check(url, acknowledged, known))
    assert len(acknowledged) >= KILLS
    interrupted += len(known - acknowledged)  # whole, and killed before anybody was told
    assert interrupted > 0, "no kill met a create in its middle: the test proves nothing"


def test_a_killed_service_loses_nothing_in_its_file(tmp_path: Path) -> None:
    path = tmp_path / "kshot.db"
    survive(f"sqlite:{path}", Creator.kill, lambda: 0)
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_killed_service_loses_nothing_in_redis(tmp_path: Path) -> None:
    with redis_server(tmp_path / "redis") as server:

        def leftovers() -> int:
            with server.client() as client:
                asides = client.keys("kshot:aside:*")
                assert all(client.ttl(key) > 0 for key in asides)
                return len(asides)

        survive(server.url, Creator.kill, leftovers)


def test_a_killed_redis_loses_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    with redis_server(tmp_path / "redis") as server:

        def kill_the_server(creator: Creator) -> None:
            server.kill()
            creator.process.join(30)  # its next create fails
            assert creator.process.exitcode == 1
            server.start()

        def leftovers() -> int:
            with server.client() as client:
                return len(client.keys("kshot:aside:*"))

        survive(server.url, kill_the_server, leftovers)


async def test_a_store_whose_redis_came_back_goes_on(tmp_path: Path) -> None:
    with redis_server(tmp_path / "redis") as server:
        store = await open_store(server.url)
        record = a_task()
        await store.create(record, pictures_of(record))
        server.kill()
        with pytest.raises(StoreError, match="does not do its work"):
            await store.get(record.task_id)
        server.start()
        assert await store.get(record.task_id) == record
        other = a_task()
        await store.create(other, pictures_of(other))
        assert await listed(store) == [other.task_id, record.task_id]
        await store.close()
