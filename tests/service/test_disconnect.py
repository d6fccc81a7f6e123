"""A client that leaves takes its work with it: nothing of it reaches the device, nothing stays."""

import asyncio
import gc
import os
import random
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send
from torch import Tensor

from model.recognizer import Recognizer
from service.app import create_app
from service.http.connection import DisconnectWatcher
from service.http.server import Protocol
from service.settings import Settings
from service.tasks.allowance import NOTHING
from tests.model.tiny import tiny_recognizer
from tests.serving import moving_clip, query_files, support_files

CLIENTS = int(os.environ.get("KSHOT_TEST_CLIENTS", "60"))
LEAVING = 0.3
FRAMES_S = 800.0  # of the slow device
CLIPS = {"jump": [moving_clip(1)], "wave": [moving_clip(2)]}


class Device:
    """Counts the frames that reach a tiny recognizer, which takes its time over them."""

    def __init__(self) -> None:
        self.frames = 0
        self.free = threading.Event()
        self.free.set()
        self.recognizer = tiny_recognizer("task_adapter_pp")
        whole, some = self.recognizer.trunk, self.recognizer.trunk_frames

        def clips(frames_QTHWC: np.ndarray) -> Tensor:
            self.take(frames_QTHWC.shape[0] * frames_QTHWC.shape[1])
            return whole(frames_QTHWC)

        def frames(frames_NHWC: np.ndarray) -> Tensor:
            self.take(frames_NHWC.shape[0])
            return some(frames_NHWC)

        self.recognizer.trunk = clips  # type: ignore[method-assign]
        self.recognizer.trunk_frames = frames  # type: ignore[method-assign]

    def take(self, frames: int) -> None:
        self.frames += frames
        assert self.free.wait(60)
        time.sleep(frames / FRAMES_S)


async def nothing(
    request: Request, call_next: Callable[[Request], Awaitable[Response]]
) -> Response:
    """A middleware that does nothing but hide disconnects from what is inside it."""
    return await call_next(request)


@pytest.fixture
def device(serve_instead: Callable[[Recognizer], None]) -> Device:
    made = Device()
    serve_instead(made.recognizer)
    return made


@asynccontextmanager
async def served(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Run an application under uvicorn in this very loop, so that its tasks can be counted."""
    config = uvicorn.Config(app, http=Protocol, port=0, log_config=None, access_log=False)
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve())
    await until(lambda: server.started, within_s=60)
    port = server.servers[0].sockets[0].getsockname()[1]
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    try:
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", timeout=60, limits=limits
        ) as client:
            yield client
    finally:
        server.should_exit = True
        await running


def pending() -> set[str]:
    """Name the tasks that run for requests."""
    names = {repr(task.get_coro()) for task in asyncio.all_tasks()}
    return {name for name in names if "run_asgi" in name or "watch" in name or "decode" in name}


async def until(claim: Callable[[], bool], within_s: float = 10.0) -> None:
    async with asyncio.timeout(within_s):
        while not claim():  # noqa: ASYNC110 - other parts set no event
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("middleware", ["none", "inside", "outside"])
async def test_clients_that_leave_take_their_work_with_them(
    settings: Settings, device: Device, middleware: str, caplog: pytest.LogCaptureFixture
) -> None:
    """30 of 100 leave at a random moment in the first half of the time that all take."""
    app = create_app(settings.model_copy(update={"max_inflight_frames": 10**6, "deadline_s": 60}))
    if middleware == "outside":
        app.add_middleware(BaseHTTPMiddleware, dispatch=nothing)
    if middleware == "inside":
        app.user_middleware.append(
            type(app.user_middleware[0])(BaseHTTPMiddleware, dispatch=nothing)
        )
    found: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: found.append(context))
    rng = random.Random(7)
    async with served(app) as client:
        made = await client.post("/tasks", files=support_files(CLIPS))
        url, before = f"/tasks/{made.json()['id']}/classify", device.frames
        work_s = CLIENTS * 8 / FRAMES_S
        asking = [
            asyncio.create_task(client.post(url, files=query_files(CLIPS["jump"][0])))
            for _ in range(CLIENTS)
        ]
        leaving = rng.sample(asking, int(LEAVING * CLIENTS))
        done_when_leaving = await _leave(leaving, rng, work_s)
        staying = [task for task in asking if task not in leaving]
        answers = await asyncio.gather(*staying)
        assert {answer.status_code for answer in answers} == {200}
        await until(lambda: not pending() and app.state.ledger.held == NOTHING)
        left = len(leaving) - done_when_leaving
        reached = (device.frames - before) // 8 - len(staying) - done_when_leaving
        assert left >= CLIENTS // 10, "too few left in time to tell"
        assert reached <= max(2, 0.1 * left), f"the work of {reached} of {left} was done"
        assert app.state.service.engine.queued_frames == 0
    gc.collect()
    assert not found
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def _leave(
    leaving: list["asyncio.Task[httpx.Response]"], rng: random.Random, within_s: float
) -> int:
    """Let clients go at random moments; returns how many had their answer by then."""
    moments = sorted(rng.uniform(0, within_s / 2) for _ in leaving)
    begun, done = time.monotonic(), 0
    for moment, task in zip(moments, leaving, strict=True):
        await asyncio.sleep(max(0.0, begun + moment - time.monotonic()))
        done += task.done()
        task.cancel()
    await asyncio.gather(*leaving, return_exceptions=True)
    return done


async def test_a_registration_is_undone_when_its_client_left_and_goes_on_when_acknowledged(
    settings: Settings, device: Device
) -> None:
    app = create_app(settings)
    async with served(app) as client:
        device.free.clear()
        files = support_files(CLIPS)
        known = await client.post("/tasks", files=files, headers={"prefer": "wait=0"})
        assert known.status_code == 202
        leaving = asyncio.create_task(client.post("/tasks", files=files))
        await until(lambda: len(app.state.service.tasks.supports.preparations) == 2)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        device.free.set()

        tasks = app.state.service.tasks
        await until(lambda: not tasks._undoing and not tasks.supports.preparations)
        listed = (await client.get("/tasks")).json()["tasks"]
        assert [(task["id"], task["status"]) for task in listed] == [(known.json()["id"], "ready")]
        await until(lambda: app.state.ledger.held == NOTHING)


async def test_clips_that_wait_for_a_decoder_do_not_begin_when_their_client_leaves(
    settings: Settings,
) -> None:
    app = create_app(settings)
    async with served(app) as client:
        made = await client.post("/tasks", files=support_files(CLIPS))
        pool = app.state.service.pool
        await until(lambda: pool.turns.free == pool.workers)
        taken = [pool.turns._free.popleft() for _ in range(pool.workers)]
        read = [decoder.clips for decoder in taken]
        url = f"/tasks/{made.json()['id']}/classify"
        asking = asyncio.create_task(client.post(url, files=query_files(*CLIPS["jump"] * 4)))
        await until(lambda: app.state.ledger.held.frames == 32)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await until(lambda: app.state.ledger.held == NOTHING)
        for decoder in taken:
            pool.turns.put(decoder)
        await asyncio.sleep(0.1)
        assert [decoder.clips for decoder in taken] == read


class Wire:
    """A server's side of one request: a body at once, and a client that leaves when told."""

    def __init__(self) -> None:
        self.leaves = asyncio.Event()
        self.sent: list[Message] = []
        self._messages = iter([{"type": "http.request", "body": b"x", "more_body": False}])

    async def receive(self) -> Message:
        for message in self._messages:
            return message
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.sent.append(message)


SCOPE: Scope = {"type": "http", "method": "POST", "path": "/", "headers": []}


async def test_a_cancelled_request_is_seen_off_and_its_task_lives_on() -> None:
    wire = Wire()

    async def app(_: Scope, receive: Receive, __: Send) -> None:
        await receive()
        await asyncio.sleep(60)

    request = asyncio.create_task(DisconnectWatcher(app)({**SCOPE}, wire.receive, wire.send))
    await asyncio.sleep(0.01)
    wire.leaves.set()
    await request
    assert wire.sent[0]["status"] == 499


async def test_an_answered_request_is_not_cancelled() -> None:
    wire = Wire()

    async def app(_: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x"})
        wire.leaves.set()
        await asyncio.sleep(0.01)
        done.append(True)

    done: list[bool] = []
    await DisconnectWatcher(app)({**SCOPE}, wire.receive, wire.send)
    assert done


async def test_the_servers_own_cancellation_is_passed_on() -> None:
    wire = Wire()

    async def app(_: Scope, receive: Receive, __: Send) -> None:
        await receive()
        await asyncio.sleep(60)

    request = asyncio.create_task(DisconnectWatcher(app)({**SCOPE}, wire.receive, wire.send))
    await asyncio.sleep(0.01)
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert not wire.sent


async def test_a_client_that_leaves_while_the_head_is_sent_gets_head_and_body_in_order() -> None:
    """What is outside may take its time with a message, as `BaseHTTPMiddleware` does."""
    head_begun, gone = asyncio.Event(), asyncio.Event()
    sent: list[str] = []

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.sleep(60)  # it is cancelled here at the latest

    async def receive() -> Message:
        if not head_begun.is_set() and not asked:
            asked.append(True)
            return {"type": "http.request", "body": b"", "more_body": False}
        await head_begun.wait()
        gone.set()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            head_begun.set()
            await gone.wait()
            await asyncio.sleep(0.05)
        sent.append(message["type"])

    asked: list[bool] = []
    scope: Scope = {"type": "http", "method": "POST", "path": "/", "headers": []}
    async with asyncio.timeout(20):
        await DisconnectWatcher(app)(scope, receive, send)
    assert sent == ["http.response.start", "http.response.body"]
    assert scope["kshot.code"] == "client-left"
