"""Watching a task over HTTP: every change is told once, also one that another replica makes."""

import itertools
import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from service.app import create_app
from service.container import Service
from service.http.events.forms import id_of, told_by
from service.settings import Settings
from service.tasks.events.standing import Event, Standing, event_between
from service.tasks.events.watch import ASK_S
from tests.held_device import device_held
from tests.redis_server import redis_server
from tests.service.test_metrics import samples
from tests.serving import moving_clip, problem, register, serving_app, support_files

CLIPS = {"jump": [moving_clip(1)], "wave": [moving_clip(2)]}
MOST = 8
WAIT_S = 20.0


class Replica(NamedTuple):
    http: httpx.Client
    parts: Service


@pytest.fixture(scope="module")
def pair(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Replica]]:
    """Serve one Redis twice."""
    with ExitStack() as stack:
        server = stack.enter_context(redis_server(tmp_path_factory.mktemp("redis")))
        settings = Settings(
            checkpoint=str(checkpoint),
            store=server.url,
            threads=1,
            decode_workers=1,
            max_watchers=MOST,
        )
        replicas = []
        for _ in range(2):
            app = create_app(settings)
            http = stack.enter_context(serving_app(app))
            replicas.append(Replica(http, app.state.service))
        yield replicas


@contextmanager
def watching(http: httpx.Client, task: str, last: str = "") -> Iterator[Iterator[dict[str, Any]]]:
    """Read a task's events; a comment is an event without a name."""
    headers = {"last-event-id": last} if last else {}
    with http.stream("GET", f"/tasks/{task}/events", headers=headers, timeout=WAIT_S) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield read(answer.iter_lines())


def read(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    event: dict[str, Any] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if name:
            event[name] = json.loads(value) if name == "data" else value
        elif not line:
            yield event
            event = {}
        if line == ":":
            event = {"comment": True}


def until(events: Iterator[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """Read up to an event of a kind, comments left out."""
    found = []
    for event in events:
        if "event" in event:
            found.append(event)
        if event.get("event") == kind:
            return found
    raise AssertionError(f"The stream ended without {kind}: {found}")


def emptied(parts: Service) -> bool:
    """Wait until nobody reads."""
    deadline = time.monotonic() + WAIT_S
    while parts.watch.readers and time.monotonic() < deadline:
        time.sleep(0.02)
    return not parts.watch.readers


def test_a_registration_a_change_and_a_deletion_are_told_here_and_by_another_replica(
    pair: list[Replica],
) -> None:
    (here, parts), (there, _) = pair
    with ExitStack() as stack:
        free = stack.enter_context(device_held(parts.engine))
        answer = here.post("/tasks", files=support_files(CLIPS), headers={"prefer": "wait=0"})
        assert answer.status_code == 202
        task = answer.json()["id"]
        mine, other = (stack.enter_context(watching(http, task)) for http in (here, there))
        first = next(mine)
        assert (first["event"], first["data"]["status"]) == ("progress", "processing")
        assert first["data"]["progress"] < 1
        free.set()
        ready = until(mine, "ready")[-1]["data"]
        assert (ready["task_id"], ready["status"], ready["progress"]) == (task, "ready", 1.0)
        until(other, "ready")
        assert here.patch(f"/tasks/{task}", json={"name": "new"}).status_code == 200
        for events in (mine, other):
            changed = until(events, "changed")[-1]["data"]
            assert changed["revision"] == ready["revision"] + 1
        assert here.delete(f"/tasks/{task}").status_code == 204
        for events in (mine, other):
            assert until(events, "deleted")[-1]["data"]["status"] == "deleted"
            assert list(events) == [], "the stream ends"
    problem(there.get(f"/tasks/{task}/events"), 404, "task-not-found")
    assert all(emptied(replica.parts) for replica in pair)


def test_a_reader_that_comes_back_is_told_what_it_has_missed_and_nothing_twice(
    pair: list[Replica],
) -> None:
    http, parts = pair[0]
    task = register(http, CLIPS)["id"]
    with watching(http, task) as events:
        seen = until(events, "ready")[-1]["id"]
    with watching(pair[1].http, task, seen) as events:  # by whatever replica
        assert next(events) == {"comment": True}
        assert http.patch(f"/tasks/{task}", json={"name": "new"}).status_code == 200
        (changed,) = until(events, "changed")
    assert http.patch(f"/tasks/{task}", json={"name": "newer"}).status_code == 200
    with watching(http, task, changed["id"]) as events:
        assert next(events)["data"]["revision"] == changed["data"]["revision"] + 1
    with watching(http, task, "no id of ours") as events:
        assert next(events)["event"] == "ready"
    assert emptied(parts)


def test_many_readers_of_a_task_cost_the_store_what_one_does(pair: list[Replica]) -> None:
    http, parts = pair[0]
    task = register(http, CLIPS)["id"]
    with ExitStack() as stack:
        events = [stack.enter_context(watching(http, task)) for _ in range(MOST)]
        for each in events:
            until(each, "ready")
        problem(http.get(f"/tasks/{task}/events"), 503, "server-full")
        begun, before = time.monotonic(), asked(http)
        threads = threading.active_count()
        assert pair[1].http.patch(f"/tasks/{task}", json={"name": "new"}).status_code == 200
        for each in events:
            until(each, "changed")
        assert asked(http) - before <= 2 + (time.monotonic() - begun) / ASK_S
        assert threading.active_count() <= threads + 1
    assert emptied(parts), "a reader that has left holds nothing"
    with watching(http, task) as again:
        until(again, "ready")


def asked(http: httpx.Client) -> float:
    """Tell how often the store was asked for a record."""
    labels = frozenset({("op", "get"), ("outcome", "ok")})
    return samples(http)["kshot_store_seconds_count", labels]


def test_a_service_that_stops_lets_its_readers_go(pair: list[Replica]) -> None:
    http, parts = pair[0]
    task = register(http, CLIPS)["id"]
    with watching(http, task) as events:
        until(events, "ready")
        parts.watch.close()
        try:
            assert [event for event in events if "event" in event] == []
            assert http.get(f"/tasks/{task}/events").status_code == 204
        finally:
            parts.watch._closed = False


NEW = Standing(1, "processing", 50)
READY = Standing(2, "ready", 100)
FAILED = Standing(2, "failed", 0, "Its clips cannot be read.")


@pytest.mark.parametrize(
    ("told", "now", "kind"),
    [
        (None, NEW, "progress"),
        (NEW, NEW, None),
        (NEW, READY, "ready"),
        (NEW, FAILED, "failed"),
        (READY, READY, None),
        (READY, Standing(3, "ready", 100), "changed"),
        (READY, Standing(3, "processing", 0), "changed"),
        (Standing(3, "processing", 0), Standing(3, "ready", 100), "ready"),
        (READY, None, "deleted"),
    ],
)
def test_what_a_change_is_called(
    told: Standing | None, now: Standing | None, kind: str | None
) -> None:
    event = event_between(told, now)
    assert (event.kind if event else None) == kind
    if event is not None:
        assert event == Event(event.kind, now or READY)


def test_an_event_id_says_what_its_reader_was_told() -> None:
    for standing in (NEW, READY, FAILED):
        told = told_by(f" {id_of(standing)} ")
        assert told is not None
        assert event_between(told, standing) is None
    garbage = ("", "2-ready", "2-gone-1", "1e9-ready-1", "²-ready-1", "2-ready-1000", "9" * 99)
    for sent in itertools.chain(garbage, [None]):
        assert told_by(sent) is None
