"""F17: a disk without room, and a clock that jumps."""

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from fastapi import FastAPI

from tests.faults.stage import CLIPS
from tests.serving import classify, moving_clip, problem, register, scores, support_files

Served = tuple[httpx.Client, FastAPI]
HOUR_S = 3600.0


@contextmanager
def full_disk() -> Iterator[None]:
    """Make the kernel refuse to let any file grow."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_f17_a_full_disk_is_told_and_what_was_acknowledged_answers_as_before(
    served: Served,
) -> None:
    client, _ = served
    task, query = register(client, CLIPS)["id"], moving_clip(8)
    before, listed = classify(client, task, query), client.get("/tasks").json()
    with full_disk():
        refused = client.post("/tasks", files=support_files(CLIPS))
        assert problem(refused, 503, "store-unavailable")["retryable"]
        assert int(refused.headers["retry-after"]) >= 1
        assert scores(classify(client, task, query)) == scores(before)
        assert client.get("/tasks").json() == listed
    assert client.get("/tasks").json() == listed
    assert register(client, CLIPS)["status"] == "ready"


@pytest.mark.parametrize("jump_s", [-24 * HOUR_S, 24 * HOUR_S])
def test_f17_a_clock_that_jumps_loses_no_task_and_ends_no_request(
    served: Served, monkeypatch: pytest.MonkeyPatch, jump_s: float
) -> None:
    client, _ = served
    lasting, week = register(client, CLIPS), register(client, CLIPS, ttl_s=str(7 * 24 * HOUR_S))
    right, query = time.time, moving_clip(8)
    before = classify(client, lasting["id"], query)
    monkeypatch.setattr(time, "time", lambda: right() + jump_s)
    for task in (lasting, week):
        assert scores(classify(client, task["id"], query))[0].keys() == {"jump", "wave"}
        assert client.get(f"/tasks/{task['id']}").json()["id"] == task["id"]
    other = register(client, CLIPS)
    monkeypatch.undo()
    ids = paged(client)
    assert {lasting["id"], week["id"], other["id"]} <= set(ids)
    assert len(ids) == len(set(ids))
    assert classify(client, lasting["id"], query)["results"] == before["results"]
    assert client.get("/readyz").json()["ok"]


def paged(client: httpx.Client) -> list[str]:
    """Read all pages, two tasks each."""
    ids, cursor = [], dict[str, str]()
    while True:
        page = client.get("/tasks", params={"limit": "2", **cursor}).json()
        ids += [task["id"] for task in page["tasks"]]
        if not page["next_cursor"]:
            return ids
        cursor = {"cursor": page["next_cursor"]}
