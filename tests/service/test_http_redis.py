"""The service on a real Redis: replicas share tasks, and it lives on while Redis is away."""

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from service.app import create_app
from service.settings import Settings
from service.tasks import arrivals
from tests.held_decoding import decoding_held
from tests.redis_server import RedisServer, heard, redis_server
from tests.serving import (
    classify,
    moving_clip,
    problem,
    query_files,
    register,
    scores,
    serving,
    serving_app,
    support_files,
)

Clips = dict[str, list[bytes]]
QUERY = moving_clip(8)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def shared(settings: Settings, server: RedisServer) -> Settings:
    return settings.model_copy(update={"store": server.url})


def test_any_replica_serves_any_task(shared: Settings, clips: Clips) -> None:
    with serving(shared) as one, serving(shared) as other:
        task = register(one, clips)
        assert other.get(f"/tasks/{task['id']}").json() == task
        here, there = (scores(classify(client, task["id"], QUERY)) for client in (one, other))
        for label, numbers in here[0].items():
            assert there[0][label] == pytest.approx(numbers, abs=1e-5)
        assert other.delete(f"/tasks/{task['id']}").status_code == 204
        answer = one.post(f"/tasks/{task['id']}/classify", files=query_files(QUERY))
        problem(answer, 404, "task-not-found")


def test_a_task_whose_replica_does_not_decode_it_is_decoded_by_another_that_lives(
    shared: Settings, clips: Clips, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what the first one decodes in the end changes nothing."""
    monkeypatch.setattr(arrivals, "LOOK_S", 0.1)
    monkeypatch.setattr(arrivals, "LEFT_S", 0.3)
    app = create_app(shared)
    with serving_app(app) as stuck, serving(shared) as other:
        with decoding_held(app.state.service.pool) as gate:
            files = support_files(clips)
            accepted = stuck.post("/tasks", files=files, headers={"prefer": "wait=0"})
            assert accepted.status_code == 202
            path = f"/tasks/{accepted.json()['id']}"
            late = time.monotonic() + 20
            while (adopted := other.get(path).json())["revision"] == 1:
                assert time.monotonic() < late, adopted
                time.sleep(0.05)
            assert gate.asked
        assert adopted["status"] == "ready"
        assert None not in [clip["codec"] for clip in adopted["clips"]]
        assert classify(stuck, accepted.json()["id"], QUERY)["task_revision"] == 2
        while (settled := stuck.get(path).json()) != adopted:
            assert time.monotonic() < late, settled
            time.sleep(0.05)
        assert other.get(path).json() == adopted


def test_a_task_deleted_by_another_replica_stays_deleted_while_redis_is_away(
    shared: Settings, server: RedisServer, clips: Clips
) -> None:
    with serving(shared) as one, serving(shared) as other:
        task = register(one, clips)
        classify(one, task["id"], QUERY)
        assert other.delete(f"/tasks/{task['id']}").status_code == 204
        asked = {"url": f"/tasks/{task['id']}/classify", "files": query_files(QUERY)}
        problem(one.post(**asked), 404, "task-not-found")
        server.kill()
        problem(one.post(**asked), 503, "store-unavailable")


def test_readiness_tells_that_registrations_would_be_refused(
    shared: Settings, server: RedisServer
) -> None:
    with serving(shared) as client:
        assert client.get("/readyz").json()["reasons"] == {}
        with server.client() as behind:
            behind.config_set("appendonly", "no")
        health = client.get("/readyz").json()
        assert health["degraded"]
        assert "append-only file" in health["reasons"]["store"]


def test_tasks_at_hand_answer_while_redis_hangs_and_while_it_is_away(
    shared: Settings, server: RedisServer, clips: Clips
) -> None:
    with serving(shared) as client:
        task = register(client, clips)
        before = classify(client, task["id"], QUERY)
        assert server.process is not None
        server.process.send_signal(signal.SIGSTOP)
        try:
            begun = time.monotonic()
            assert classify(client, task["id"], QUERY)["results"] == before["results"]
            classify(client, task["id"], QUERY)
            assert time.monotonic() - begun < 8  # a hung Redis is waited for ten seconds
            health = client.get("/readyz").json()
        finally:
            server.process.send_signal(signal.SIGCONT)
        assert (health["ok"], health["degraded"], health["parts"]["store"]) == (True, True, False)
        assert "did not answer" in health["reasons"]["store"]

        server.kill()
        assert classify(client, task["id"], QUERY)["results"] == before["results"]
        health = client.get("/readyz")
        assert health.status_code == 200
        assert health.json()["degraded"]
        assert not health.json()["parts"]["store"]
        refused = client.post("/tasks", files=support_files(clips))
        assert problem(refused, 503, "store-unavailable")["retryable"]
        assert int(refused.headers["retry-after"]) >= 1
        problem(client.get(f"/tasks/{task['id']}"), 503, "store-unavailable")

        server.start()
        assert client.get(f"/tasks/{task['id']}").json() == task
        assert register(client, clips)["status"] == "ready"
        assert not client.get("/readyz").json()["degraded"]
        assert client.delete(f"/tasks/{task['id']}").status_code == 204
        asked = {"url": f"/tasks/{task['id']}/classify", "files": query_files(QUERY)}
        problem(client.post(**asked), 404, "task-not-found")


def keys(server: RedisServer) -> set[bytes]:
    with server.client() as behind:
        return set(behind.keys("*"))


def test_a_redis_that_is_full_is_a_503_with_its_remedy_and_keeps_nothing_half_written(
    shared: Settings, server: RedisServer, clips: Clips
) -> None:
    limited = shared.model_copy(update={"quota_frames": 10_000})
    with serving(limited) as client, server.client() as behind:
        task = register(client, clips)
        path = f"/tasks/{task['id']}"
        before = classify(client, task["id"], QUERY)
        shown = client.get(path).json()
        exported = client.get(f"{path}/export").content
        behind.config_set("maxmemory", 1)
        there = keys(server)
        zip_file = {"content-type": "application/zip"}
        for answer in (
            client.post("/tasks", files=support_files(clips)),
            client.post("/tasks", files=support_files(clips), headers={"prefer": "wait=0"}),
            client.post("/tasks/import", content=exported, headers=zip_file),
            client.post(f"{path}/labels/wave/clips", files=query_files(QUERY)),
            client.put(f"{path}/labels/swim", files=query_files(QUERY)),
        ):
            body = problem(answer, 503, "store-full")
            assert body["retryable"]
            assert "delete tasks" in body["detail"]
            assert int(answer.headers["retry-after"]) >= 1
        assert keys(server) <= there
        assert client.get(path).json() == shown
        assert [one["id"] for one in client.get("/tasks").json()["tasks"]] == [task["id"]]
        assert classify(client, task["id"], QUERY)["results"] == before["results"]
        behind.config_set("maxmemory", 0)
        other = register(client, clips)
        behind.config_set("maxmemory", 1)
        assert client.delete(f"/tasks/{other['id']}").status_code == 204  # which makes room
        behind.config_set("maxmemory", 0)
        assert keys(server) <= there | {b"kshot:rates:default"}


def test_pictures_are_read_when_supports_are_encoded_again_and_else_never(
    shared: Settings, server: RedisServer, clips: Clips
) -> None:
    with serving(shared) as one:
        task = register(one, clips)["id"]

        def ask(client: httpx.Client) -> None:
            classify(client, task, QUERY)
            assert client.get(f"/tasks/{task}").status_code == 200
            assert client.get("/tasks").json()["tasks"]
            assert client.get(f"/tasks/{task}/diagnosis").status_code == 200
            assert client.patch(f"/tasks/{task}", json={"name": "moves"}).status_code == 200

        assert not [each for each in heard(server.url, lambda: ask(one)) if reads(each)]
    with serving(shared) as again:  # with what the store has of it
        assert not [each for each in heard(server.url, lambda: ask(again)) if reads(each)]
    with server.client() as behind:
        behind.delete(f"kshot:supports:{task}")
    with ExitStack() as stack:
        third: list[httpx.Client] = []

        def start() -> None:
            third.append(stack.enter_context(serving(shared)))
            ask(third[0])

        assert [each for each in heard(server.url, start) if reads(each)]
        assert not [each for each in heard(server.url, lambda: ask(third[0])) if reads(each)]


def reads(command: str) -> bool:
    """Tell whether a command of a client reads pictures."""
    return command.startswith(("HMGET kshot:pictures:", "HKEYS kshot:pictures:", "HGETALL kshot:p"))
