"""F18: a task deleted while it classifies and while it is rebuilt is gone, on every replica."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from service.app import create_app
from service.settings import Settings
from tests.bench.bars import Bar
from tests.faults.figures import tell
from tests.faults.load import asking, until
from tests.faults.stage import CLIPS, JSON, query_body
from tests.held_device import device_held
from tests.redis_server import RedisServer, redis_server
from tests.serving import problem, register, serving_app

Replica = tuple[httpx.Client, FastAPI]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis") / "redis") as server:
        yield server


@pytest.fixture(scope="module")
def replicas(checkpoint: Path, server: RedisServer) -> Iterator[list[Replica]]:
    settings = Settings(checkpoint=str(checkpoint), store=server.url, threads=1, decode_workers=1)
    one, other = create_app(settings), create_app(settings)
    with serving_app(one) as here, serving_app(other) as there:
        yield [(here, one), (there, other)]


def ask(client: httpx.Client, task: str) -> httpx.Response:
    return client.post(f"/tasks/{task}/classify", content=query_body(1), headers=JSON)


def left_of(task: str, server: RedisServer, replicas: list[Replica]) -> list[Any]:
    """Name what is left of a task: keys, members of indexes, supports and records in memory."""
    with server.client() as behind:
        left: list[Any] = behind.keys(f"*{task}*")
        for key in behind.keys("*"):
            if behind.type(key) in (b"zset", b"set"):
                members = behind.zrange(key, 0, -1) if behind.type(key) == b"zset" else None
                members = behind.smembers(key) if members is None else members
                left += [key for member in members if task.encode() in member]
    for _, app in replicas:
        supports = app.state.service.tasks.supports
        left += [key for key in supports.cache._entries if key.task_id == task]
        left += [each for each in (supports._records, supports.preparations) if task in each]
    return left


def test_f18_a_task_deleted_amid_classifies_is_gone_on_every_replica_from_the_answer_on(
    replicas: list[Replica], server: RedisServer
) -> None:
    task = register(replicas[0][0], CLIPS)["id"]

    def classify(number: int) -> str:
        answer = ask(replicas[number % 2][0], task)
        return "200" if answer.status_code == 200 else f"404 {answer.json()['code']}"

    with asking(classify, 4) as load:
        load.wait(8, "200")
        assert replicas[0][0].delete(f"/tasks/{task}").status_code == 204
        gone = time.monotonic()
        load.wait(8)
    after = load.counts(gone)
    assert after.keys() == {"404 task-not-found"}
    assert load.counts().keys() == {"200", "404 task-not-found"}
    until(lambda: not left_of(task, server, replicas), "nothing left")
    tell(
        "F18",
        [Bar("answers of a deleted task", float(after["200"]), "<=", 0)],
        asked_after=after.total(),
        answered_before=load.counts(0, gone)["200"],
    )


def test_f18_a_task_deleted_while_a_replica_rebuilds_it_is_not_put_back(
    replicas: list[Replica], server: RedisServer
) -> None:
    task = register(replicas[0][0], CLIPS)["id"]
    there, app = replicas[1]
    supports = app.state.service.tasks.supports
    with server.client() as behind:
        behind.delete(f"kshot:supports:{task}")  # so that it has to be encoded again
    with ThreadPoolExecutor(1) as threads, device_held(app.state.service.engine):
        asked = threads.submit(ask, there, task)
        until(lambda: bool(supports.cache._builds), "a rebuild")
        assert replicas[0][0].delete(f"/tasks/{task}").status_code == 204
        with ThreadPoolExecutor(1) as later:
            problem(later.submit(ask, there, task).result(60), 404, "task-not-found")
    assert asked.result(60).status_code in (200, 404)
    problem(ask(there, task), 404, "task-not-found")
    until(lambda: not left_of(task, server, replicas), "nothing left")
