"""Who gets in: settled before the body is read, given back whatever comes."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send
from torch import Tensor

from model.recognizer import Recognizer
from service.app import create_app
from service.http.admission import Admission, Pace, tenant_of
from service.limits import limits_of
from service.settings import Settings
from service.tasks.allowance import NOTHING, Cost, Ledger
from tests.model.tiny import tiny_recognizer
from tests.serving import classify, moving_clip, problem, query_files, register, serving_app

PACE = Pace(
    frames_s=100.0,
    query_frames_s=100.0,
    frames_clip=8,
    decoders=2,
    clip_bytes=1000.0,
    decode_s_byte=1e-4,
)
LIMITS = replace(limits_of(Settings()), request_bytes=10_000)
MOST = Cost(bytes=100_000, decode_ms=100_000, frames=10_000)
CLASSIFY = "/v1/tasks/abc/classify"


class Client:
    """The other end of one request, by hand."""

    def __init__(self, body: bytes = b"") -> None:
        self.body = body
        self.reads = 0
        self.sent: list[Message] = []

    async def receive(self) -> Message:
        self.reads += 1
        return {"type": "http.request", "body": self.body, "more_body": False}

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])

    @property
    def code(self) -> str:
        return str(json.loads(self.sent[1]["body"])["code"])


def scope(path: str = CLASSIFY, length: int | None = 1000, host: str = "10.0.0.1") -> Scope:
    told = b"transfer-encoding", b"chunked"
    if length is not None:
        told = b"content-length", str(length).encode()
    return {
        "type": "http",
        "method": "POST",
        "path": path,
        "headers": [told],
        "client": (host, 5),
    }


class Held:
    """An application that notes what is held, and waits until it may go on."""

    def __init__(self) -> None:
        self.ledger = Ledger(MOST, share=0.5)
        self.go = asyncio.Event()
        self.costs: list[Cost] = []
        self.failure: Exception | None = None

    async def __call__(self, scope: Scope, receive: Receive, _: Send) -> None:
        allowance = scope["kshot.allowance"]
        self.costs.append(allowance.credits.cost)
        await receive()
        self.costs.append(allowance.credits.cost)
        await self.go.wait()
        if self.failure:
            raise self.failure


def admission(app: Held, pace: Pace = PACE) -> Admission:
    none = dict.fromkeys(("ring", "keeper"), lambda _: None)
    return Admission(app, ledger=app.ledger, limits=LIMITS, pace=lambda _: pace, **none)


@pytest.mark.parametrize(
    ("path", "length", "cost"),
    [
        (CLASSIFY, 800, Cost(bytes=800, decode_ms=80, frames=8)),
        ("/tasks/abc/classify", 2500, Cost(bytes=2500, decode_ms=250, frames=24)),
        ("/tasks", 1200, Cost(bytes=1200, decode_ms=120, frames=16)),
        ("/v1/tasks", 9000, Cost(bytes=9000, decode_ms=900, frames=72)),
        (CLASSIFY, None, Cost(bytes=10_000, decode_ms=100, frames=8)),
        ("/nothing", 700, Cost(bytes=700)),
    ],
)
async def test_credits_are_taken_before_the_body_and_made_true_after_it(
    path: str, length: int | None, cost: Cost
) -> None:
    app = Held()
    app.go.set()
    await admission(app)(scope(path, length), Client(bytes(500)).receive, Client().send)
    assert app.costs == [cost, replace(cost, bytes=500)]
    assert app.ledger.held == NOTHING


async def test_credits_come_back_after_an_error_and_after_a_cancellation() -> None:
    app = Held()
    app.failure = RuntimeError("any")
    failing, leaving = (
        asyncio.create_task(admission(app)(scope(), Client(b"x").receive, Client().send))
        for _ in range(2)
    )
    await asyncio.sleep(0)
    assert app.ledger.held.frames == 16
    leaving.cancel()
    app.go.set()
    outcomes = await asyncio.gather(failing, leaving, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [RuntimeError, asyncio.CancelledError]
    assert app.ledger.held == NOTHING


async def refused(app: Held, sent: Scope, pace: Pace = PACE) -> Client:
    client = Client()
    await admission(app, pace)(sent, client.receive, client.send)
    assert client.reads == 0, "a refusal must not read the body"
    return client


async def test_a_full_server_is_503_and_an_own_share_is_429() -> None:
    app = Held()
    app.ledger.take("10.0.0.1", Cost(frames=480))
    answer = await refused(app, scope(length=3000, host="10.0.0.2"))
    assert (answer.status, answer.code) == (503, "server-full")
    assert 3.8 < int(answer.headers[b"retry-after"]) < 6.1  # 480 frames at 100 a second, jittered
    assert b"connection" not in answer.headers
    answer = await refused(app, scope(length=3000))
    assert (answer.status, answer.code) == (429, "tenant-over-share")
    assert 3.8 < int(answer.headers[b"retry-after"]) < 6.1


async def test_what_cannot_be_done_in_time_is_refused_at_once() -> None:
    """100 frames are held, a second's work: a request that has 1.5 s gives the queue half of it."""
    app = Held()
    app.ledger.take("10.0.0.1", Cost(frames=100))
    hasty = scope()
    hasty["headers"].append((b"x-request-timeout-ms", b"1500"))
    assert (await refused(app, hasty)).code in ("server-full", "tenant-over-share")
    app.go.set()
    await admission(app)(scope(), Client().receive, Client().send)
    unknown = replace(PACE, frames_s=0.0, query_frames_s=0.0)
    await admission(app, unknown)(hasty, Client().receive, Client().send)


async def test_decoding_is_counted_too() -> None:
    app = Held()
    app.ledger.take(
        "10.0.0.2", Cost(decode_ms=9_990)
    )  # 10 s for two decoders, half of them waiting
    assert (await refused(app, scope())).code == "server-full"


async def test_retry_after_has_bounds() -> None:
    for frames, expected in ((10, 1), (9_990, 30)):
        app = Held()
        app.ledger.take("b", Cost(frames=frames))
        app.ledger.held += Cost(frames=9_995 - frames)
        slow = replace(PACE, query_frames_s=1e5 if frames == 10 else 1.0)
        answer = await refused(app, scope(length=2000), slow)
        assert int(answer.headers[b"retry-after"]) == expected


@pytest.mark.parametrize(
    ("host", "tenant"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.1"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
    ],
)
def test_a_tenant_is_an_address_or_the_network_one_host_can_fill(host: str, tenant: str) -> None:
    assert tenant_of({"client": (host, 1)}) in (tenant, "::ffff:a00:1")
    assert tenant_of({"client": None}) == ""


# --- over HTTP ---------------------------------------------------------------------------------

FRAMES_S = 400.0  # of the slow device
CLIP = moving_clip(1)
DEVICE_FREE = threading.Event()
DEVICE_FREE.set()


def slow_model() -> Recognizer:
    """A tiny recognizer that takes 2.5 ms a frame, however busy the processor is."""
    recognizer = tiny_recognizer("task_adapter_pp")
    trunk = recognizer.trunk

    def slowly(frames_QTHWC: np.ndarray) -> Tensor:
        assert DEVICE_FREE.wait(30)
        time.sleep(frames_QTHWC.shape[0] * frames_QTHWC.shape[1] / FRAMES_S)
        return trunk(frames_QTHWC)

    recognizer.trunk = slowly  # type: ignore[method-assign]
    return recognizer


@pytest.fixture
def slow(
    settings: Settings, serve_instead: Callable[[Recognizer], None]
) -> Iterator[tuple[httpx.Client, FastAPI]]:
    serve_instead(slow_model())
    app = create_app(settings.model_copy(update={"max_inflight_frames": 128, "decode_workers": 2}))
    with serving_app(app) as client:
        yield client, app


def test_overload_is_refused_and_the_service_recovers(
    slow: tuple[httpx.Client, FastAPI],
) -> None:
    """32 clients in a loop against a device that holds 16 clips: 48 get in, none is left over."""
    client, app = slow
    task = register(client, {"jump": [CLIP], "wave": [moving_clip(2)]})["id"]
    files = query_files(CLIP)
    many = httpx.Client(
        base_url=client.base_url, timeout=60, limits=httpx.Limits(max_connections=32)
    )
    seen: list[tuple[int, str]] = []

    def ask(_: int) -> None:
        while seen.count((200, "")) < 48:
            answer = many.post(f"/tasks/{task}/classify", files=files)
            code = "" if answer.is_success else answer.json()["code"]
            seen.append((answer.status_code, code))
            if code:
                assert 1 <= int(answer.headers["retry-after"]) <= 30
                time.sleep(0.1)

    with many, ThreadPoolExecutor(32) as threads:
        list(threads.map(ask, range(32)))
    assert set(seen) == {(200, ""), (503, "server-full")}
    assert seen.count((503, "server-full")) >= 8
    assert app.state.ledger.held == NOTHING
    classify(client, task, CLIP)


def test_health_and_reading_need_no_credits(slow: tuple[httpx.Client, FastAPI]) -> None:
    client, app = slow
    task = register(client, {"jump": [CLIP], "wave": [moving_clip(2)]})["id"]
    with app.state.ledger.take("x", app.state.ledger.most), app.state.ledger.take("y", NOTHING):
        app.state.ledger.held += app.state.ledger.most
        refused = client.post(f"/tasks/{task}/classify", files=query_files(CLIP))
        problem(refused, 503, "server-full")
        for path in ("/livez", "/readyz", "/limits", "/info", "/tasks", f"/tasks/{task}"):
            assert client.get(path).status_code == 200
        app.state.ledger.held -= app.state.ledger.most
    assert app.state.ledger.held == NOTHING


def answer_of(raw: socket.socket) -> bytes:
    """Read one answer with a JSON body."""
    read = b""
    while not read.endswith(b"}"):
        read += raw.recv(4096)
    return read


def test_a_refusal_comes_before_the_body_and_leaves_the_connection_usable(
    slow: tuple[httpx.Client, FastAPI],
) -> None:
    client, app = slow
    address = client.base_url.host, client.base_url.port or 80
    head = (
        b"POST /tasks/abc/classify HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: 1000\r\n\r\n"
    )
    with app.state.ledger.take("x", app.state.ledger.most):
        app.state.ledger.held += app.state.ledger.most
        with socket.create_connection(address, timeout=10) as raw:
            raw.sendall(head)
            assert b" 503 " in answer_of(raw)
            raw.sendall(b"x" * 1000 + b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b" 200 " in answer_of(raw)
        with socket.create_connection(address, timeout=10) as raw:
            raw.sendall(head.replace(b" 1000", b" 9000000") + b"x" * 1000)
            assert b"connection: close" in answer_of(raw)
        app.state.ledger.held -= app.state.ledger.most


def test_a_registration_holds_its_frames_until_they_are_encoded(
    slow: tuple[httpx.Client, FastAPI],
) -> None:
    client, app = slow
    clips = {"jump": [CLIP] * 4, "wave": [moving_clip(2)] * 4}
    files = [
        (f"support[{label}]", (f"{n}.mp4", clip, "video/mp4"))
        for label, given in clips.items()
        for n, clip in enumerate(given)
    ]
    DEVICE_FREE.clear()
    try:
        answer = client.post("/tasks", files=files, headers={"prefer": "wait=0"})
        assert answer.status_code == 202
        until_held(app, Cost(frames=64))  # the bytes go back after the answer
    finally:
        DEVICE_FREE.set()
    until_held(app, NOTHING)
    url = f"/tasks/{answer.json()['id']}"
    while (status := client.get(url).json()["status"]) == "processing":
        time.sleep(0.02)
    assert status == "ready"


def until_held(app: FastAPI, cost: Cost) -> None:
    """Wait until just so much is held."""
    late = time.monotonic() + 10
    while (held := app.state.ledger.held) != cost:
        assert time.monotonic() < late, held
        time.sleep(0.01)
