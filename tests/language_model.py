"""A real HTTP endpoint that speaks the chat-completions protocol, well or badly, as a test asks."""

import asyncio
import itertools
import json
import threading
import time
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from model.text import spoken

STAGES = ["An arm goes up.", "The hand moves from side to side.", "The arm goes down."]


@dataclass
class Endpoint:
    """What the endpoint answers, and what it was asked."""

    mode: str = "good"
    status: int = 200  # of an answer in the mode "endless"
    content: str = json.dumps({"stages": STAGES})
    raw: bytes = b""  # the body, in the mode "raw"
    by_label: dict[str, str] = field(default_factory=dict)  # content where a label is asked about
    finish_reason: str = "stop"
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    failures_first: int = 0  # answer 500 so many times before the mode holds
    calls: list[dict[str, Any]] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    url: str = ""

    async def answer(self, request: Request) -> Response:
        call = await request.json() | {"authorization": request.headers["authorization"]}
        self.calls.append(call)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(self.delay_s)
            if len(self.calls) <= self.failures_first:
                return _error(500, {})
            return self._answer(call)
        finally:
            self.at_once -= 1

    def _answer(self, call: dict[str, Any]) -> Response:
        if self.mode == "refusal":
            return _completion({"refusal": "I can't help with that.", "content": None}, "stop")
        if self.mode == "not json":
            return Response("<html>gateway</html>", media_type="text/html")
        if self.mode == "broken json":
            return Response('{"choices": [', media_type="application/json")
        if self.mode == "no choices":
            return JSONResponse({"id": "x", "object": "chat.completion", "choices": []})
        if self.mode == "raw":
            return Response(self.raw, media_type="application/json", headers=self.headers)
        if self.mode in ("long", "endless", "packed"):
            return _much(self.mode, self.status)
        if self.mode == "drip":
            return StreamingResponse(_drip(), media_type="application/json")
        if self.mode == "plain only" and "response_format" in call:
            return _error(400, {})
        if self.mode.isdigit():
            return _error(int(self.mode), self.headers)
        asked = call["messages"][-1]["content"]
        named = [
            content
            for label, content in self.by_label.items()
            if json.dumps(spoken(label), ensure_ascii=False) in asked
        ]
        return _completion({"content": (named or [self.content])[0]}, self.finish_reason)


def _completion(message: dict[str, Any], finish_reason: str) -> Response:
    choice = {
        "index": 0,
        "finish_reason": finish_reason,
        "message": {"role": "assistant"} | message,
    }
    return JSONResponse(
        {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    )


def _error(status: int, headers: dict[str, str]) -> Response:
    return JSONResponse({"error": {"message": "no"}}, status_code=status, headers=headers)


async def _drip() -> AsyncIterator[bytes]:
    yield b"{"
    while True:
        await asyncio.sleep(0.02)
        yield b" "


def _much(kind: str, status: int) -> Response:
    """Answer 100 MB of good JSON, spaces for ever, or a gigabyte packed into a megabyte."""
    blank = b" " * 2**20
    if kind == "packed":
        packer = zlib.compressobj(wbits=31)
        piece = packer.compress(blank) + packer.flush(zlib.Z_FULL_FLUSH)
        again = packer.compress(blank) + packer.flush(zlib.Z_FULL_FLUSH)
        packed = (piece, *[again] * 1000)
        return StreamingResponse(
            iter(packed), media_type="application/json", headers={"content-encoding": "gzip"}
        )
    pieces = itertools.repeat(blank, 100) if kind == "long" else itertools.repeat(blank)
    return StreamingResponse(
        itertools.chain([b'{"choices": ['], pieces, [b"]}"]), status, media_type="application/json"
    )


@contextmanager
def language_model() -> Iterator[Endpoint]:
    """Run the endpoint in a thread."""
    endpoint = Endpoint()
    app = FastAPI()
    app.post("/v1/chat/completions")(endpoint.answer)
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=0)
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started:
        assert thread.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    endpoint.url = f"http://127.0.0.1:{port}/v1"
    try:
        yield endpoint
    finally:
        server.should_exit = server.force_exit = True
        thread.join(20)
