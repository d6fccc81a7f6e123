"""Requests with an Idempotency-Key: whatever happens to the first, one task is made."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import redis
from fastapi import FastAPI
from hypothesis import given
from hypothesis import settings as settings_of
from hypothesis import strategies as st

from service.container import Service
from service.decoding.pool import ClipRequest
from service.stores.errors import StoreUnavailableError
from service.stores.protocol import Pictures
from service.stores.quotas.kept import Quotas
from service.stores.records import TaskRecord
from service.tasks.inputs import ClipInput, NewLabel, NewTask
from service.tasks.once import fingerprint
from tests.forked import ForkedService
from tests.held_decoding import decoding_held
from tests.limited import locked_app
from tests.service.test_keys import bearer, make
from tests.serving import (
    Files,
    base64_of,
    moving_clip,
    problem,
    query_files,
    support_files,
)

CLIPS = {"jump": [moving_clip(10)], "wave": [moving_clip(20)]}
OTHERS = {"jump": [moving_clip(11)], "wave": [moving_clip(20)]}
MORE = moving_clip(12)
FIRST = {"prefer": "wait=20"}


class Served:
    """A running service whose callers have keys, and the number of the last key of a request."""

    def __init__(self, store: str, app: FastAPI, http: httpx.Client) -> None:
        self.store, self.app, self.http = store, app, http
        self.acme = bearer(make(store, "acme"))
        self.other = bearer(make(store, "acme-2"))
        self.count = 0

    @property
    def service(self) -> Service:
        running = self.app.state.service
        assert isinstance(running, Service)
        return running

    def key(self) -> dict[str, str]:
        """Draw a key for a request of the tenant."""
        self.count += 1
        return {**self.acme, **FIRST, "idempotency-key": f'"request-{self.count}"'}

    def register(self, headers: dict[str, str], files: Files | None = None) -> httpx.Response:
        return self.http.post("/tasks", files=files or support_files(CLIPS), headers=headers)

    def tasks(self) -> set[str]:
        return listed(self.http, self.acme)

    def made(self, before: set[str]) -> list[str]:
        return sorted(self.tasks() - before)


def listed(http: httpx.Client, headers: dict[str, str]) -> set[str]:
    page = http.get("/tasks?limit=100", headers=headers).json()
    return {task["id"] for task in page["tasks"]}


@pytest.fixture(scope="module")
def served(url: str, checkpoint: Path) -> Iterator[Served]:
    with locked_app(url, checkpoint) as (app, http):
        yield Served(url, app, http)


def same(first: httpx.Response, again: httpx.Response) -> None:
    """Assert that an answer is the first one, byte for byte."""
    assert (again.status_code, again.content) == (first.status_code, first.content)
    for name in ("location", "etag", "content-type"):
        assert again.headers.get(name) == first.headers.get(name)


def until(reached: Callable[[], bool]) -> None:
    late = time.monotonic() + 20
    while not reached():
        assert time.monotonic() < late
        time.sleep(0.01)


@pytest.fixture(scope="module")
def done(served: Served) -> tuple[dict[str, str], httpx.Response]:
    """A request that was answered: its headers, and the answer."""
    key = served.key()
    first = served.register(key)
    assert first.status_code == 201, first.text
    return key, first


Done = tuple[dict[str, str], httpx.Response]


def test_a_retry_with_another_boundary_gets_the_first_answer_and_no_second_task(
    served: Served, done: Done
) -> None:
    (key, first), before = done, served.tasks()
    again = served.register(key)
    assert first.request.headers["content-type"] != again.request.headers["content-type"]
    same(first, again)
    task = first.json()["id"]
    assert task.startswith("acme_")
    bare = {**key, "idempotency-key": key["idempotency-key"].strip('"')}
    same(first, served.http.post("/v1/tasks", files=support_files(CLIPS), headers=bare))
    labels = [
        {"label": label, "clips": [{"video": base64_of(clip), "name": "0.mp4"} for clip in clips]}
        for label, clips in CLIPS.items()
    ]
    same(first, served.http.post("/tasks", json={"labels": labels}, headers=key))
    changed = served.http.patch(f"/tasks/{task}", json={"name": "later"}, headers=served.acme)
    assert changed.json()["revision"] > 1
    same(first, served.register(key))
    assert served.made(before) == []


def test_another_body_under_a_key_is_refused(served: Served, done: Done) -> None:
    (key, _), before = done, served.tasks()
    problem(served.register(key, support_files(OTHERS)), 422, "idempotency-key-reused")
    named = {"files": support_files(CLIPS), "data": {"name": "named"}, "headers": key}
    problem(served.http.post("/tasks", **named), 422, "idempotency-key-reused")  # type: ignore[arg-type]
    assert served.made(before) == []


def test_of_two_at_once_one_makes_the_task_and_the_other_is_told_to_ask_again(
    served: Served,
) -> None:
    before, key = served.tasks(), served.key()
    with ThreadPoolExecutor(2) as threads, decoding_held(served.service.pool) as gate:
        first = threads.submit(served.register, key)
        until(lambda: gate.asked > 0)
        second = served.register(key)
        assert problem(second, 409, "idempotency-in-progress")["retryable"]
        assert int(second.headers["retry-after"]) >= 1
        problem(served.register(key, support_files(OTHERS)), 422, "idempotency-key-reused")
        gate.let(10)
        answer = first.result(timeout=30)
    assert answer.status_code == 201
    same(answer, served.register(key))
    assert served.made(before) == [answer.json()["id"]]


def test_many_clients_with_one_key_make_one_task(served: Served) -> None:
    before, key = served.tasks(), served.key()
    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(lambda _: served.register(key), range(6)))
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert len({answer.content for answer in answers if answer.status_code == 201}) == 1
    assert len(served.made(before)) == 1


def test_a_key_of_another_tenant_or_another_route_is_another_key(
    served: Served, done: Done
) -> None:
    key, first = done
    theirs = {**key, **served.other}
    other = served.register(theirs)
    assert other.status_code == 201
    assert other.json()["id"].startswith("acme-2_")
    content = served.http.get(f"/tasks/{first.json()['id']}/export", headers=served.acme).content
    headers = {**key, "content-type": "application/zip"}
    copies = [served.http.post("/tasks/import", content=content, headers=headers) for _ in range(2)]
    assert copies[0].status_code == 201
    same(*copies)
    assert copies[0].json()["id"] != first.json()["id"]


def test_what_made_nothing_may_be_sent_again_corrected(served: Served) -> None:
    before, key = served.tasks(), served.key()
    broken = support_files({"jump": [b"no video"], "wave": CLIPS["wave"]})
    problem(served.register(key, broken), 415, "container-not-allowed")
    first = served.register(key)
    assert first.status_code == 201
    assert served.made(before) == [first.json()["id"]]


def test_clips_are_added_once(served: Served, done: Done) -> None:
    task = done[1].json()["id"]
    before = served.http.get(f"/tasks/{task}", headers=served.acme).json()
    key, path = served.key(), f"/tasks/{task}/labels/wave/clips"
    answers = [served.http.post(path, files=query_files(MORE), headers=key) for _ in range(2)]
    assert answers[0].status_code == 200, answers[0].text
    same(*answers)
    task_now = served.http.get(f"/tasks/{task}", headers=served.acme).json()
    assert task_now["revision"] == before["revision"] + 1
    assert len(task_now["clips"]) == len(before["clips"]) + 1
    other = served.http.post(path, files=query_files(moving_clip(13)), headers=key)
    problem(other, 422, "idempotency-key-reused")


def test_a_query_is_answered_once(served: Served, done: Done) -> None:
    task = done[1].json()["id"]
    asked = served.http.post(
        f"/tasks/{task}/classify",
        files=query_files(MORE),
        data={"remember": "true"},
        headers=served.acme,
    ).json()
    path = f"/tasks/{task}/inbox/{asked['results'][0]['query_id']}"
    key = served.key()
    answers = [served.http.post(path, json={"label": "wave"}, headers=key) for _ in range(2)]
    assert answers[0].status_code == 200, answers[0].text
    same(*answers)
    without = served.http.post(path, json={"label": "wave"}, headers=served.acme)
    problem(without, 409, "query-answered")


def test_a_deleted_task_takes_its_answers_with_it_and_is_not_made_again(served: Served) -> None:
    before, key = served.tasks(), served.key()
    task = served.register(key).json()["id"]
    assert served.http.delete(f"/tasks/{task}", headers=served.acme).status_code == 204
    problem(served.register(key), 410, "idempotency-answer-gone")
    assert served.made(before) == []


def test_what_is_no_key_is_refused_before_anything_is_done(served: Served) -> None:
    before = served.tasks()
    for sent in ("", '"', '"half', "two words", "x" * 256, "x" * 10_000, "clé", 'a"b', "tab\tbed"):
        headers = [*served.acme.items(), ("idempotency-key", sent.encode("latin-1"))]
        answer = served.http.post("/tasks", files=support_files(CLIPS), headers=headers)  # type: ignore[arg-type]
        problem(answer, 400, "idempotency-key-invalid")
    twice = [*served.acme.items(), *[("idempotency-key", "a")] * 2]
    answer = served.http.post("/tasks", files=support_files(CLIPS), headers=twice)
    problem(answer, 400, "idempotency-key-invalid")
    assert served.made(before) == []


def sent_and_left(served: Served, headers: dict[str, str], left: Callable[[], bool]) -> None:
    """Send a registration, and go when `left` says so."""
    request = served.http.build_request(
        "POST", "/tasks", files=support_files(CLIPS), headers=headers
    )
    lines = [f"{name}: {value}" for name, value in request.headers.items()]
    head = "\r\n".join(["POST /tasks HTTP/1.1", *lines, "", ""]).encode()
    address = (request.url.host, request.url.port or 80)
    with socket.create_connection(address) as connection:
        connection.sendall(head + request.read())
        until(left)


def test_a_client_that_leaves_finds_the_task_that_was_made_meanwhile(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, key = served.tasks(), served.key()
    store, made, over = served.service.store, threading.Event(), asyncio.Event()
    create = store.create

    async def slowly(record: TaskRecord, pictures: Pictures, usual: Quotas | None) -> None:
        await create(record, pictures, usual)
        made.set()
        await over.wait()  # meanwhile the client goes

    monkeypatch.setattr(store, "create", slowly)
    sent_and_left(served, key, made.is_set)
    answer = served.register(key)
    late = time.monotonic() + 20
    while answer.status_code == 409 and time.monotonic() < late:
        answer = served.register(key)
    over.set()
    assert answer.status_code == 201, answer.text
    assert served.made(before) == [answer.json()["id"]]
    same(answer, served.register(key))


def test_what_was_stored_before_its_answer_was_lost_is_found_again(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store kept it and could not say so; or the process ended before the answer was kept."""
    store = served.service.store
    create, once = store.create, store.once

    async def lost(record: TaskRecord, pictures: Pictures, usual: Quotas | None) -> None:
        await create(record, pictures, usual)
        raise StoreUnavailableError("Gone before it said so.")

    async def cut(name: str, *_: object, **__: object) -> None:
        await once.leave(name, forget=False)

    for part, name, broken, status in ((store, "create", lost, 503), (once, "finish", cut, 201)):
        before, key = served.tasks(), served.key()
        with monkeypatch.context() as patch:
            patch.setattr(part, name, broken)
            assert served.register(key).status_code == status
        again = served.register(key)
        assert again.status_code == 201, again.text
        assert served.made(before) == [again.json()["id"]]
        same(again, served.register(key))


def test_a_store_that_is_away_makes_nothing_and_the_retry_does(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object, **__: object) -> None:
        raise StoreUnavailableError("Away.")

    store = served.service.store
    for part, name in ((store, "create"), (store.once, "begin")):
        before, key = served.tasks(), served.key()
        with monkeypatch.context() as patch:
            patch.setattr(part, name, away)
            problem(served.register(key), 503, "store-unavailable")
        assert served.made(before) == []
        assert served.register(key).status_code == 201
        assert len(served.made(before)) == 1


def test_a_service_killed_between_task_and_answer_leaves_a_task_that_the_retry_gets(
    served: Served, checkpoint: Path, tmp_path: Path
) -> None:
    shared = served.store.startswith("redis")
    settings = {"store": served.store if shared else f"sqlite:{tmp_path}/kshot.db"}
    settings |= {"checkpoint": str(checkpoint), "threads": "1", "decode_workers": "1"}
    key, before = served.key(), served.tasks()
    killed = ForkedService(settings, tmp_path / "log", "tests.service.stalled_answers")
    try:
        with ThreadPoolExecutor(1) as threads, httpx.Client(base_url=killed.url) as http:
            body = {"files": support_files(CLIPS), "headers": key, "timeout": 60}
            first = threads.submit(lambda: http.post("/tasks", **body))  # type: ignore[arg-type]
            until(lambda: listed(http, served.acme) - before != set())
            (task,) = listed(http, served.acme) - before
            killed.kill()
            with pytest.raises(httpx.TransportError):
                first.result(timeout=30)
        if shared:
            with redis.Redis.from_url(served.store) as behind:  # as time does
                assert behind.delete(*behind.keys("kshot:once-held:*")) == 1
            assert served.register(key).json()["id"] == task
            return
        killed = ForkedService(settings, tmp_path / "log")
        with httpx.Client(base_url=killed.url, timeout=60) as http:
            again = [http.post("/tasks", files=support_files(CLIPS), headers=key) for _ in "ab"]
            assert [answer.json()["id"] for answer in again] == [task] * 2
            same(*again)
            assert listed(http, {}) == {task}
    finally:
        killed.kill()


def clips_of(bodies: list[bytes], first: int = 0) -> tuple[ClipInput, ...]:
    return tuple(
        ClipInput(first + place, ClipRequest(video=body), f"{place}.mp4")
        for place, body in enumerate(bodies)
    )


def task_of(bodies: list[bytes], *, allow_partial: bool = False) -> NewTask:
    labels = (
        NewLabel("jump", None, clips_of(bodies)),
        NewLabel("wave", None, clips_of([b"last"], len(bodies))),
    )
    return NewTask(name=None, ttl_s=None, allow_partial=allow_partial, labels=labels)


@settings_of(max_examples=40)
@given(st.lists(st.binary(max_size=8), min_size=1, max_size=4), st.data())
def test_a_fingerprint_is_of_bytes_order_and_fields(
    bodies: list[bytes], data: st.DataObject
) -> None:
    of = fingerprint.of_task("a name", task_of(bodies))
    assert of == fingerprint.of_task("a name", task_of([*bodies]))
    assert of != fingerprint.of_task("another", task_of(bodies))
    assert of != fingerprint.of_task("a name", task_of(bodies, allow_partial=True))
    assert of != fingerprint.of_task("a name", task_of([*bodies, b""]))
    mixed = data.draw(st.permutations(bodies))
    assert (of == fingerprint.of_task("a name", task_of(mixed))) == (mixed == bodies)
    cut = [b"".join(bodies)]
    assert (of == fingerprint.of_task("a name", task_of(cut))) == (cut == bodies)
