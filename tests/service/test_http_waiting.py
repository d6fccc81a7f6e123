"""A task that is getting ready: who waits, for how long, and who is told to come back."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx
import pytest

from service.app import create_app
from service.container import Service
from service.settings import Settings
from service.stores.records import TaskRecord
from tests.held_device import device_held
from tests.serving import moving_clip, problem, query_files, serving_app, support_files

CLIPS = {"jump": [moving_clip(1)], "wave": [moving_clip(2)]}


@pytest.fixture
def busy(settings: Settings) -> Iterator[tuple[httpx.Client, Service]]:
    app = create_app(settings)
    with serving_app(app) as client:
        yield client, app.state.service


def test_a_task_not_ready_in_time_is_accepted_and_classifies_later(
    busy: tuple[httpx.Client, Service],
) -> None:
    client, parts = busy
    with device_held(parts.engine) as free:
        answer = client.post("/v1/tasks", files=support_files(CLIPS), headers={"prefer": "wait=0"})
        assert answer.status_code == 202
        task = answer.json()
        assert answer.headers["location"] == f"/v1/tasks/{task['id']}"
        assert task["status"] == "processing"
        assert task["progress"] <= 0.5  # decoded at most
        assert client.get(f"/tasks/{task['id']}").json()["status"] == "processing"
        url = f"/tasks/{task['id']}/classify"
        refused = client.post(
            url, files=query_files(CLIPS["jump"][0]), headers={"prefer": "wait=0"}
        )
        assert problem(refused, 409, "not-ready")["retryable"]
        assert int(refused.headers["retry-after"]) >= 1
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(client.post, url, files=query_files(CLIPS["jump"][0]))
            with pytest.raises(TimeoutError):
                waiting.result(timeout=0.5)
            free.set()
            assert waiting.result(timeout=20).json()["results"][0]["label"] == "jump"
    assert client.get(f"/tasks/{task['id']}").json()["status"] == "ready"


def test_who_has_read_a_task_before_it_was_decoded_takes_what_was_decoded(
    busy: tuple[httpx.Client, Service],
) -> None:
    client, parts = busy
    arrivals, loop = parts.tasks.arrivals, parts.engine._loop
    assert loop is not None
    with device_held(parts.engine) as free:
        headers = {"prefer": "wait=0"}
        task = client.post("/tasks", files=support_files(CLIPS), headers=headers).json()
        url = f"/tasks/{task['id']}"

        def stored() -> TaskRecord:
            return asyncio.run_coroutine_threadsafe(parts.store.get(task["id"]), loop).result(20)

        _until(lambda: stored().state == "decoded", "the clips to be decoded")
        read = stored()
        before = replace(read, state="uploaded", revision=read.revision - 1)
        settling = asyncio.run_coroutine_threadsafe(arrivals.settled(before, 20), loop)
        assert settling.result(20) == read
        assert client.get(url).json()["status"] == "processing"
        free.set()
        _until(lambda: client.get(url).json()["status"] == "ready", "the task to be ready")


def _until(reached: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 20
    while not reached():
        assert time.monotonic() < deadline, f"Waited 20 s for {what}."
        time.sleep(0.02)


def test_deleting_a_task_that_gets_ready_ends_it(busy: tuple[httpx.Client, Service]) -> None:
    client, parts = busy
    with device_held(parts.engine):
        prefer = {"prefer": "respond-async"}
        task = client.post("/tasks", files=support_files(CLIPS), headers=prefer).json()
        with ThreadPoolExecutor(1) as threads:
            url = f"/tasks/{task['id']}/classify"
            waiting = threads.submit(client.post, url, files=query_files(CLIPS["jump"][0]))
            with pytest.raises(TimeoutError):
                waiting.result(timeout=0.5)
            assert client.delete(f"/tasks/{task['id']}").status_code == 204
            assert waiting.result(timeout=20).status_code in (404, 409)
    problem(client.get(f"/tasks/{task['id']}"), 404, "task-not-found")


def test_health_answers_while_the_device_is_busy_and_fails_when_it_is_silent(
    settings: Settings,
) -> None:
    app = create_app(settings.model_copy(update={"heartbeat_s": 2.5}))
    with serving_app(app) as client:
        with device_held(app.state.service.engine):
            assert client.get("/livez").json() == {
                "ok": True,
                "degraded": False,
                "parts": {"event_loop": True, "device": True},
                "reasons": {},
            }
            threading.Event().wait(3)
            for path in ("/livez", "/readyz"):
                answer = client.get(path)
                assert answer.status_code == 503
                assert not answer.json()["ok"]
        threading.Event().wait(0.2)
        assert client.get("/v1/livez").status_code == 200
        assert client.get("/readyz").json()["parts"] == {
            "model": True,
            "decoders": True,
            "store": True,
        }
