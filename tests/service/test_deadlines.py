"""A request takes no longer than its client allows: read once, and checked before every stage."""

import asyncio
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from fastapi import FastAPI
from starlette.types import Message

from service.app import create_app
from service.errors import DeadlineError, InvalidRequestError
from service.http.admission import read_timeout
from service.http.connection import CountedBody
from service.http.problems import TIMEOUT_HEADER as HEADER
from service.limits import limits_of
from service.settings import Settings
from service.tasks.allowance import NOTHING, Allowance, Credits, Deadline, Ledger
from tests.held_device import device_held
from tests.limited import until
from tests.serving import base64_of, moving_clip, problem, query_files, serving_app, support_files

CLIPS = {"jump": [moving_clip(1)], "wave": [moving_clip(2)]}


@pytest.mark.parametrize(
    ("values", "expected_s"),
    [([], 10.0), (["1"], 0.001), ([" 2500 "], 2.5), (["60000"], 60.0), (["999999999"], 60.0)],
)
def test_the_header_is_milliseconds_up_to_a_cap(values: list[str], expected_s: float) -> None:
    assert read_timeout(values, 10.0, 60.0) == expected_s


@pytest.mark.parametrize(
    "values", [[""], ["0"], ["-5"], ["1.5"], ["1e3"], ["soon"], ["٣"], ["1" * 10], ["5", "5"]]
)
def test_a_header_that_is_no_whole_number_is_refused(values: list[str]) -> None:
    with pytest.raises(InvalidRequestError, match=HEADER) as refused:
        read_timeout(values, 10.0, 60.0)
    assert refused.value.faults[0].field == HEADER


async def test_a_stage_is_cut_off_and_does_not_begin_too_late() -> None:
    deadline = Deadline.after(0.02)
    with pytest.raises(DeadlineError, match="it stood at decoding"):
        async with deadline.bounding("decoding"):
            await asyncio.sleep(5)
    passed = Deadline.after(0.0)  # the timer above may have been a little early
    begun = False
    with pytest.raises(DeadlineError):
        async with passed.bounding("computing"):
            begun = True
    assert not begun
    assert passed.left_s == 0


async def test_a_timeout_of_the_stage_itself_is_not_the_deadline() -> None:
    with pytest.raises(TimeoutError):
        async with Deadline.after(5).bounding("decoding"):
            raise TimeoutError


@pytest.fixture
def served(settings: Settings) -> Iterator[tuple[httpx.Client, FastAPI]]:
    app = create_app(settings)
    with serving_app(app) as client:
        yield client, app


def test_each_stage_answers_504(served: tuple[httpx.Client, FastAPI]) -> None:
    client, app = served
    task = client.post("/tasks", files=support_files(CLIPS)).json()["id"]
    files, half = query_files(CLIPS["jump"][0]), {HEADER: "500"}
    url = f"/tasks/{task}/classify"
    with device_held(app.state.service.engine):
        answer = client.post(url, files=files, headers=half)
        stage = problem(answer, 504, "deadline-passed")
        assert "computing" in stage["detail"]
        assert stage["retryable"]
        prepared = client.post("/tasks", files=support_files(CLIPS), headers={"prefer": "wait=0"})
        fresh = f"/tasks/{prepared.json()['id']}/classify"
        begun = time.monotonic()
        answer = client.post(fresh, files=files, headers=half)
        assert "waiting for the task" in problem(answer, 504, "deadline-passed")["detail"]
        assert time.monotonic() - begun < 5
    decoders = app.state.service.pool
    taken = [decoders.turns._free.popleft() for _ in range(decoders.workers)]
    for path, given in (("/tasks", support_files(CLIPS)), (url, files)):
        answer = client.post(path, files=given, headers=half)
        assert "decoding" in problem(answer, 504, "deadline-passed")["detail"]
    read = sum(decoder.clips for decoder in taken)
    for decoder in taken:
        decoders.turns.put(decoder)
    assert client.post(url, files=files, headers=half | {HEADER: "20000"}).status_code == 200
    assert sum(decoder.clips for decoder in taken) == read + 1  # nothing that was too late
    assert app.state.ledger.held.frames == 0


def test_a_clip_waits_in_the_line_of_its_tenant(served: tuple[httpx.Client, FastAPI]) -> None:
    client, app = served
    url = f"/tasks/{client.post('/tasks', files=support_files(CLIPS)).json()['id']}/classify"
    turns = app.state.service.pool.turns
    taken = [turns._free.popleft() for _ in range(turns.free)]
    transport = httpx.HTTPTransport(local_address="127.0.0.2")  # another tenant
    other = httpx.Client(base_url=client.base_url, transport=transport)
    with other, ThreadPoolExecutor() as at_once:
        asking = [
            at_once.submit(one.post, url, files=query_files(CLIPS["jump"][0]), timeout=60)
            for one in (client, client, other)
        ]
        line = turns._waiting["classify"]._waiting
        until(lambda: [len(line.get(f"127.0.0.{host}", ())) for host in (1, 2)] == [2, 1])
        for decoder in taken:
            app.state.service.engine._loop.call_soon_threadsafe(turns.put, decoder)
        assert [one.result().status_code for one in asking] == [200, 200, 200]


def test_a_body_that_does_not_come_in_time_is_504(served: tuple[httpx.Client, FastAPI]) -> None:
    client, _ = served
    with socket.create_connection((client.base_url.host, client.base_url.port or 80)) as raw:
        raw.sendall(
            b"POST /tasks HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"X-Request-Timeout-Ms: 300\r\nContent-Length: 1000\r\n\r\n{"
        )
        raw.settimeout(10)
        answer = b""
        while not answer.endswith(b"}"):
            answer += raw.recv(8192)
    assert b" 504 " in answer
    assert b"receiving" in answer
    assert b"connection: close" in answer


async def test_a_body_is_late_though_the_timer_of_its_deadline_was_early() -> None:
    async def early() -> Message:
        raise TimeoutError

    async def send(_: Message) -> None: ...

    body = CountedBody(
        {"type": "http", "headers": []},
        early,
        send,
        limits=limits_of(Settings(max_request_bytes=10, min_upload_bytes_s=1)),
        allowance=Allowance(
            "", Deadline.after(5.0), Credits(Ledger(NOTHING, share=1.0), "", NOTHING)
        ),
    )
    with pytest.raises(DeadlineError, match="receiving"):
        await body.receive()


def test_a_header_that_cannot_be_read_is_422_and_not_asked_of_health(client: httpx.Client) -> None:
    body = {"clips": [{"video": base64_of(CLIPS["jump"][0])}]}
    answer = client.post("/tasks/abc/classify", json=body, headers={HEADER: "soon"})
    refused = problem(answer, 422, "invalid-request")
    assert refused["errors"][0]["field"] == HEADER
    assert client.get("/livez", headers={HEADER: "soon"}).status_code == 200


def test_a_registration_is_encoded_beyond_its_deadline(
    served: tuple[httpx.Client, FastAPI],
) -> None:
    client, app = served
    with device_held(app.state.service.engine):
        headers = {HEADER: "3000", "prefer": "wait=4"}
        answer = client.post("/tasks", files=support_files(CLIPS), headers=headers)
        assert answer.status_code == 202
    url = f"/tasks/{answer.json()['id']}/classify"
    assert client.post(url, files=query_files(CLIPS["jump"][0])).status_code == 200
