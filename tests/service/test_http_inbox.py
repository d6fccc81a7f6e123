"""Queries that a task remembers, through real HTTP: listed, shown, learnt from, and gone."""

import io
import json
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from service.settings import Settings
from service.stores.inboxes.policy import LEAST_NONE, MOST_RAISED, NoneOfThese
from tests.redis_server import redis_server
from tests.service.test_http_changes import same_scores
from tests.serving import base64_of, classify, moving_clip, problem, query_files, register, serving
from tests.stored_tasks import a_task

A, B, C, D, E = (moving_clip(seed) for seed in range(1, 6))
CLIPS = {"jump": [A, B], "wave": [C]}
REMEMBER = {"remember": "true"}


@pytest.fixture(scope="module")
def replicas(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Serve one Redis twice."""
    with ExitStack() as stack:
        server = stack.enter_context(redis_server(tmp_path_factory.mktemp("redis")))
        settings = Settings(
            checkpoint=str(checkpoint), store=server.url, threads=1, decode_workers=1
        )
        yield [stack.enter_context(serving(settings)) for _ in range(2)]


@pytest.fixture(params=["sqlite", "redis"])
def pair(request: pytest.FixtureRequest) -> list[httpx.Client]:
    """Two ways to one store; with SQLite they are the same."""
    if request.param == "sqlite":
        return [request.getfixturevalue("client")] * 2
    pair: list[httpx.Client] = request.getfixturevalue("replicas")
    return pair


def remembered(http: httpx.Client, path: str, *clips: bytes) -> list[str]:
    """Classify clips that shall be remembered, and return their ids."""
    answer = http.post(f"{path}/classify", files=query_files(*clips), data=REMEMBER)
    assert answer.status_code == 200, answer.text
    ids = [result["query_id"] for result in answer.json()["results"]]
    assert len({*ids} - {None}) == len(clips)
    return ids


def inbox(http: httpx.Client, path: str) -> list[dict[str, Any]]:
    """Return the queries of an inbox."""
    answer = http.get(f"{path}/inbox")
    assert answer.status_code == 200, answer.text
    queries: list[dict[str, Any]] = answer.json()["queries"]
    return queries


def test_an_answer_is_corrected_and_the_task_scores_as_if_it_had_had_the_clip(
    pair: list[httpx.Client],
) -> None:
    one, other = pair
    task_id = register(one, CLIPS)["id"]
    path = f"/tasks/{task_id}"
    found = one.post(f"{path}/classify", files=query_files(D, E), data=REMEMBER).json()["results"]
    queries = inbox(other, path)
    assert [query["score"] for query in queries] == sorted(r["score"] for r in found)
    by_id = {result["query_id"]: result for result in found}
    for query in queries:
        result = by_id[query["query_id"]]
        for name in ("label", "score", "unknown", "nearest", "threshold", "frames_s", "name"):
            assert query[name] == result[name]
        assert [x["label"] for x in query["ranking"]] == [x["label"] for x in result["ranking"]]
    query_id = found[0]["query_id"]
    strip = other.get(f"{path}/inbox/{query_id}/frames")
    assert strip.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(strip.content)).width > 0
    url = f"{path}/inbox/{query_id}"
    for body in ({"label": "wave"}, {"label": None}, {"dismiss": True}):
        stale = other.post(url, json=body, headers={"if-match": '"7"'})
        assert problem(stale, 412, "revision-stale")["revision"] == 1
    problem(other.post(url, json={"label": "swim"}), 404, "label-not-found")
    answer = other.post(url, json={"label": "wave"}, headers={"if-match": '"1"'})
    assert answer.status_code == 200, answer.text
    assert answer.headers["etag"] == '"2"'
    task = answer.json()
    assert task["change"]["added_clips"] == [query_id] == [task["clips"][-1]["clip_id"]]
    assert task["clips"][-1]["label"] == "wave"
    same_scores(one, task_id, {"jump": [A, B], "wave": [C, D]})
    for body in ({"label": "jump"}, {"label": None}, {"dismiss": True}):
        problem(one.post(url, json=body), 409, "query-answered")
    problem(one.get(f"{url}/frames"), 409, "query-answered")
    assert [query["query_id"] for query in inbox(one, path)] == [found[1]["query_id"]]


def test_of_two_who_say_what_a_query_is_one_is_told_that_it_is_answered(
    pair: list[httpx.Client],
) -> None:
    path = f"/tasks/{register(pair[0], CLIPS)['id']}"
    (query_id,) = remembered(pair[0], path, D)
    with ThreadPoolExecutor(2) as threads:
        bodies = ({"label": "wave"}, {"label": "jump"})
        url = f"{path}/inbox/{query_id}"
        posts = [
            threads.submit(http.post, url, json=body)
            for http, body in zip(pair, bodies, strict=True)
        ]
        answers = [post.result() for post in posts]
    assert sorted(answer.status_code for answer in answers) in ([200, 404], [200, 409])
    task = pair[1].get(path).json()
    assert (task["revision"], len(task["clips"])) == (2, 4)


def test_what_is_dismissed_or_none_of_the_labels_is_gone(client: httpx.Client) -> None:
    path = f"/tasks/{register(client, CLIPS)['id']}"
    first, second = remembered(client, path, D, E)
    answer = client.post(f"{path}/inbox/{first}", json={"dismiss": True})
    assert (answer.status_code, answer.json()["revision"]) == (200, 1)
    problem(client.post(f"{path}/inbox/{first}", json={"dismiss": True}), 404, "query-not-found")
    answer = client.post(f"{path}/inbox/{second}", json={"label": None})
    assert (answer.status_code, answer.json()["revision"]) == (200, 2)
    assert len(answer.json()["clips"]) == 3
    problem(client.post(f"{path}/inbox/{second}", json={"label": "wave"}), 409, "query-answered")
    shown = client.get(f"{path}/inbox").json()
    assert (shown["queries"], shown["none_of_these"], shown["task_revision"]) == ([], 1, 2)


def test_enough_queries_that_are_none_of_the_labels_raise_the_threshold(
    client: httpx.Client,
) -> None:
    made = register(client, CLIPS)
    path = f"/tasks/{made['id']}"
    assert client.patch(path, json={"unknown_below": -1}).status_code == 200
    for query_id in remembered(client, path, *[D] * LEAST_NONE):
        assert client.post(f"{path}/inbox/{query_id}", json={"label": None}).status_code == 200
    assert shown_threshold(client, path) == (-1, "task", LEAST_NONE)  # asked for by somebody
    task = client.patch(path, json={"unknown_below": None}).json()
    assert shown_threshold(client, path) == (task["threshold"], "none_of_these", LEAST_NONE)
    raised = task["threshold"] - made["threshold"]
    assert raised == pytest.approx(MOST_RAISED)  # the clip is nearer, and would be let pass


def shown_threshold(client: httpx.Client, path: str) -> tuple[float, str, int]:
    """Return the threshold of a task, which its view and its answers show alike."""
    task, answer = client.get(path).json(), classify(client, path[7:], D)
    (result,) = answer["results"]
    assert (result["threshold"], answer["threshold_by"]) == (
        task["threshold"],
        task["threshold_by"],
    )
    assert result["unknown"] == (result["nearest"] < result["threshold"])
    return task["threshold"], task["threshold_by"], task["none_of_these"]


def test_a_task_shows_the_threshold_of_the_checkpoint(client: httpx.Client) -> None:
    path = f"/tasks/{register(client, CLIPS)['id']}"
    assert shown_threshold(client, path)[1:] == ("checkpoint", 0)


def test_the_threshold_refuses_most_of_what_was_none_within_its_bounds() -> None:
    def task(*nearest: float) -> tuple[float, str]:
        none = tuple(
            NoneOfThese(query_id=f"q{n}", nearest=x, model="m") for n, x in enumerate(nearest)
        )
        object.__setattr__(record, "none_of_these", none)
        return record.threshold(0.3, "m")

    record = a_task()
    assert task(0.5, 0.5, 0.5, 0.5) == (0.3, "checkpoint")  # too few
    assert task(0.1, 0.1, 0.1, 0.1, 0.9) == (0.3, "checkpoint")  # never lowered
    assert task(0.42, 0.4, 0.35, 0.32, 0.3) == (pytest.approx(0.4, abs=1e-3), "none_of_these")
    assert task(0.9, 0.8, 0.7, 0.6, 0.5) == (0.3 + MOST_RAISED, "none_of_these")
    assert record.threshold(0.3, "another model") == (0.3, "checkpoint")


def test_a_task_remembers_what_its_policy_wants_and_nothing_by_itself(
    client: httpx.Client,
) -> None:
    path = f"/tasks/{register(client, CLIPS)['id']}"
    body = {"clips": [{"video": base64_of(D)}]}

    def ask(**more: bool) -> str | None:
        answer = client.post(f"{path}/classify", json=body | more)
        found: str | None = answer.json()["results"][0]["query_id"]
        return found

    assert ask() is None
    assert client.get(path).json()["inbox"] is None
    task = client.patch(path, json={"inbox": {"keep": 2, "below": 1.0}}).json()
    assert task["inbox"] == {"keep": 2, "below": 1.0}
    assert ask(remember=False) is None
    ids = [ask(), ask(), ask(remember=True)]
    assert {query["query_id"] for query in inbox(client, path)} == {*ids[1:]}
    never = {"unknown_below": -1, "inbox": {"below": 0}}
    assert client.patch(path, json=never).json()["inbox"]["keep"] == 50
    assert ask() is None
    assert client.patch(path, json={"inbox": None}).json()["inbox"] is None
    problem(client.patch(path, json={"inbox": {"keep": 0}}), 422, "invalid-request")


def test_a_task_has_its_policy_from_the_request_that_makes_it(client: httpx.Client) -> None:
    policy = {"keep": 7, "below": 1.0}
    by_form = register(client, CLIPS, inbox=json.dumps(policy))
    labels = [
        {"label": label, "clips": [{"video": base64_of(clip)} for clip in clips]}
        for label, clips in CLIPS.items()
    ]
    by_json = client.post("/tasks", json={"labels": labels, "inbox": policy}).json()
    assert by_form["inbox"] == by_json["inbox"] == policy
    (result,) = classify(client, by_form["id"], D)["results"]
    assert [query["query_id"] for query in inbox(client, f"/tasks/{by_form['id']}")] == [
        result["query_id"]
    ]


@pytest.mark.parametrize("body", [{}, {"dismiss": False}, {"label": "wave", "dismiss": True}])
def test_one_thing_is_said_of_a_query(client: httpx.Client, body: dict[str, Any]) -> None:
    path = f"/tasks/{register(client, CLIPS)['id']}"
    problem(client.post(f"{path}/inbox/q1", json=body), 422, "invalid-request")


def test_nothing_is_there_of_unknown_queries_and_tasks(client: httpx.Client) -> None:
    path = f"/tasks/{register(client, CLIPS)['id']}"
    for query_id in ("q0", "none%20such"):
        problem(client.get(f"{path}/inbox/{query_id}/frames"), 404, "query-not-found")
        for body in ({"label": "wave"}, {"label": None}, {"dismiss": True}):
            answer = client.post(f"{path}/inbox/{query_id}", json=body)
            problem(answer, 404, "query-not-found")
    body = {"files": query_files(D), "data": {"remember": "maybe"}}
    problem(client.post(f"{path}/classify", **body), 422, "invalid-request")
    problem(client.get(f"{path}/export", params={"remembered": "maybe"}), 422, "invalid-request")
    problem(client.get("/tasks/none/inbox"), 404, "task-not-found")
    problem(client.post("/tasks/none/inbox/q0", json={"dismiss": True}), 404, "task-not-found")


def test_a_deleted_task_leaves_nothing_of_its_queries(
    client: httpx.Client, replicas: list[httpx.Client], tmp_path_factory: pytest.TempPathFactory
) -> None:
    for http in (client, replicas[0]):
        path = f"/tasks/{register(http, CLIPS)['id']}"
        (query_id,) = remembered(http, path, D)
        assert http.delete(path).status_code == 204
        problem(http.get(f"{path}/inbox"), 404, "task-not-found")
        problem(http.get(f"{path}/inbox/{query_id}/frames"), 404, "task-not-found")
    for store in tmp_path_factory.getbasetemp().glob("http*/store"):
        with sqlite3.connect(f"file:{store}?mode=ro", uri=True) as db:
            orphans = "SELECT count(*) FROM inbox WHERE task_id NOT IN (SELECT task_id FROM tasks)"
            assert db.execute(orphans).fetchone() == (0,)
