"""`kill -9` amid registrations and changes: what was acknowledged stays, nothing is half there.

KSHOT_KILLS sets how often, for each store (default 5, and 2 among
changes; the figures used 50).
"""

import asyncio
import logging
import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.stores.opening import open_store
from tests.forked import ForkedService
from tests.redis_server import redis_server
from tests.serving import classify, moving_clip, query_files, support_files

log = logging.getLogger(__name__)

KILLS = int(os.environ.get("KSHOT_KILLS", "5"))
CHANGE_KILLS = int(os.environ.get("KSHOT_KILLS", "2"))
CLIPS = {"jump": [moving_clip(1), moving_clip(2)], "wave": [moving_clip(3)]}
QUERY = moving_clip(4)
CLIENTS = 3
LONGEST_S = 0.6  # from the first acknowledged task to the kill


@pytest.fixture(params=["sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:{tmp_path / 'kshot.db'}"
        return
    with redis_server(tmp_path / "redis", appendfsync="always") as server:
        yield server.url


def register_until_killed(url: str, acknowledged: dict[str, str]) -> None:
    """Register tasks one after another; those that were answered are noted."""
    with httpx.Client(base_url=url, timeout=30) as client:
        while True:
            name = f"task {random.random()}"
            try:
                answer = client.post("/tasks", files=support_files(CLIPS), data={"name": name})
            except httpx.TransportError:
                return
            assert answer.status_code in (201, 202), answer.text
            acknowledged[answer.json()["id"]] = name


def nearest(answer: dict[str, Any]) -> str:
    """Tell whose clips the frames match best; random words must not decide."""
    ranking = answer["results"][0]["ranking"]
    return str(max(ranking, key=lambda ranked: float(ranked["video"]))["label"])


def listed(client: httpx.Client) -> dict[str, dict[str, object]]:
    """Read all pages."""
    tasks: dict[str, dict[str, object]] = {}
    cursor = None
    while True:
        page = client.get("/tasks", params={"limit": 100} | ({"cursor": cursor} if cursor else {}))
        assert page.status_code == 200, page.text
        tasks |= {task["id"]: task for task in page.json()["tasks"]}
        if (cursor := page.json()["next_cursor"]) is None:
            return tasks


def check(url: str, acknowledged: dict[str, str], seen: set[str]) -> None:
    """Assert that every acknowledged task is there, and that every new one is whole."""
    with httpx.Client(base_url=url, timeout=30) as client:
        tasks = listed(client)
        missing = acknowledged.keys() - tasks.keys()
        assert not missing, f"{len(missing)} of {len(acknowledged)} acknowledged tasks are lost"
        for task_id, name in acknowledged.items():
            assert tasks[task_id]["name"] == name
        for task_id in tasks.keys() - seen:
            task = tasks[task_id]
            whole = client.get(f"/tasks/{task_id}").json()
            assert [(x["label"], x["clips"]) for x in whole["labels"]] == [("jump", 2), ("wave", 1)]
            assert [x["label"] for x in whole["clips"]] == ["jump", "jump", "wave"]
            assert task == {name: whole[name] for name in task} | {
                "labels": ["jump", "wave"],
                "clips": 3,
            }
            answer = classify(client, task_id, CLIPS["wave"][0])
            assert nearest(answer) == "wave"
        seen.update(tasks)


def settings_of(store: str, checkpoint: Path) -> dict[str, str]:
    one = {"threads": "1", "decode_workers": "1"}
    return {"checkpoint": str(checkpoint), "store": store, **one}


def test_a_task_that_was_accepted_and_not_decoded_is_decoded_after_the_next_start(
    store: str, checkpoint: Path, tmp_path: Path
) -> None:
    settings = settings_of(store, checkpoint)
    many = {"jump": CLIPS["jump"] * 8, "wave": CLIPS["wave"] * 16}
    service = ForkedService(settings, tmp_path / "log")
    try:
        with httpx.Client(base_url=service.url, timeout=30) as client:
            files, at_once = support_files(many), {"prefer": "wait=0"}
            answer = client.post("/tasks", files=files, headers=at_once)
            assert answer.status_code == 202, answer.text
    finally:
        service.kill()
    task_id = answer.json()["id"]
    assert asyncio.run(uploaded(store)) == [task_id]
    service = ForkedService(settings, tmp_path / "log")
    try:
        with httpx.Client(base_url=service.url, timeout=30) as client:
            while (task := client.get(f"/tasks/{task_id}").json())["status"] != "ready":
                assert task["status"] == "processing", task
                time.sleep(0.05)
            assert [clip["codec"] for clip in task["clips"]] == ["h264"] * 32
            answer = classify(client, task_id, CLIPS["wave"][0])
            assert nearest(answer) == "wave"
    finally:
        service.kill()
    assert asyncio.run(uploaded(store)) == []


async def uploaded(url: str) -> list[str]:
    """Tell which tasks a store has uploads of."""
    store = await open_store(url)
    try:
        return [*await store.uploaded()]
    finally:
        await store.close()


@pytest.mark.timeout(300 + 30 * KILLS)
def test_no_acknowledged_task_is_lost_and_none_is_half_there(
    store: str, checkpoint: Path, tmp_path: Path
) -> None:
    settings = settings_of(store, checkpoint)
    clock = random.Random(0)
    acknowledged: dict[str, str] = {}
    seen: set[str] = set()
    for _ in range(KILLS):
        service = ForkedService(settings, tmp_path / "log")
        try:
            check(service.url, acknowledged, seen)
            before = len(acknowledged)
            clients = [
                threading.Thread(target=register_until_killed, args=(service.url, acknowledged))
                for _ in range(CLIENTS)
            ]
            for client in clients:
                client.start()
            while len(acknowledged) == before and any(client.is_alive() for client in clients):
                time.sleep(0.005)
            time.sleep(clock.uniform(0, LONGEST_S))
        finally:
            service.kill()
        for client in clients:
            client.join()
    service = ForkedService(settings, tmp_path / "log")
    try:
        check(service.url, acknowledged, seen)
        log.info("%d kills, %d acknowledged, %d stored", KILLS, len(acknowledged), len(seen))
        assert len(acknowledged) >= KILLS  # the kills did fall among registrations
        with httpx.Client(base_url=service.url, timeout=30) as client:
            answer = client.post(
                f"/tasks/{next(iter(acknowledged))}/classify", files=query_files(QUERY)
            )
            assert answer.status_code == 200
    finally:
        service.kill()


def change_until_killed(url: str, task_id: str, label: str, told: dict[str, bool]) -> None:
    """Add clips to a label and remove them; `told` says which are there, by what was answered."""
    path = f"/tasks/{task_id}"
    with httpx.Client(base_url=url, timeout=30) as client:
        while True:
            try:
                answer = client.post(f"{path}/labels/{label}/clips", files=query_files(QUERY))
                assert answer.status_code in (200, 202), answer.text
                (new,) = answer.json()["change"]["added_clips"]
                told[new] = True
                if random.random() < 0.6:
                    del told[new]  # whether it is gone nobody knows until that is answered
                    answer = client.delete(f"{path}/clips/{new}")
                    assert answer.status_code in (200, 202), answer.text
                    told[new] = False
            except httpx.TransportError:
                return


@pytest.mark.timeout(300 + 60 * CHANGE_KILLS)
def test_no_acknowledged_change_is_lost_and_none_is_half_there(
    store: str, checkpoint: Path, tmp_path: Path
) -> None:
    settings = settings_of(store, checkpoint) | {"max_shots": "64"}
    clock, told, task_id, revision = random.Random(1), dict[str, bool](), "", 0
    first: set[str] = set()
    for kill in range(CHANGE_KILLS + 1):
        service = ForkedService(settings, tmp_path / "log")
        try:
            with httpx.Client(base_url=service.url, timeout=30) as client:
                if not task_id:
                    task_id = client.post("/tasks", files=support_files(CLIPS)).json()["id"]
                revision = check_changes(client, task_id, told, first, revision)
            if kill == CHANGE_KILLS:
                break
            before = len(told)
            clients = [
                threading.Thread(target=change_until_killed, args=(service.url, task_id, *given))
                for given in (("jump", told), ("wave", told))
            ]
            for thread in clients:
                thread.start()
            while len(told) == before and any(thread.is_alive() for thread in clients):
                time.sleep(0.005)
            time.sleep(clock.uniform(0, LONGEST_S))
        finally:
            service.kill()
        for thread in clients:
            thread.join()
    log.info("%d kills, %d clips changed, revision %d", CHANGE_KILLS, len(told), revision)
    assert len(told) >= CHANGE_KILLS


def check_changes(
    client: httpx.Client, task_id: str, told: dict[str, bool], first: set[str], least_revision: int
) -> int:
    """Assert that what was acknowledged stands and all of it is whole; return the revision.

    Leaves the task with the clips that it had at first.
    """
    task = client.get(f"/tasks/{task_id}").json()
    there = {clip["clip_id"] for clip in task["clips"]}
    assert not [clip for clip, stays in told.items() if stays != (clip in there)]
    assert task["revision"] >= least_revision
    for clip in there:
        assert client.get(f"/tasks/{task_id}/clips/{clip}/frames").status_code == 200
    answer = classify(client, task_id, CLIPS["wave"][0])
    assert answer["task_revision"] == task["revision"]
    assert {row["label"] for row in answer["results"][0]["ranking"]} == {"jump", "wave"}
    first.update(there if not first else ())
    for clip in there - first:  # keeps the task small, whatever a kill left unanswered
        answer = client.delete(f"/tasks/{task_id}/clips/{clip}")
        assert answer.status_code in (200, 202), answer.text
        if clip in told:
            told[clip] = False
    return int(client.get(f"/tasks/{task_id}").json()["revision"])
