"""The real service for tests, in a thread: tiny weights, real clips."""

import base64
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import uvicorn
from fastapi import FastAPI

from deploy.local_service import ROOT
from model.checkpoint import save_checkpoint
from service.app import create_app
from service.http.server import Protocol
from service.settings import Settings
from tests.frozen import freeze_again
from tests.model.tiny import tiny_recognizer
from tests.videos import make_video

START_S = 300.0  # of a large model on two cores
Files = list[tuple[str, tuple[str, bytes, str]]]


def tiny_checkpoint(folder: Path, preset: str = "task_adapter_pp", **changes: object) -> Path:
    """Write a tiny trained-looking checkpoint: 16 pixels, 3 blocks, a text tower of few words."""
    save_checkpoint(tiny_recognizer(preset, **changes), folder, "# Random weights, for tests\n")
    return folder


@cache
def moving_clip(seed: int, frames: int = 12, codec: str = "libx264") -> bytes:
    """Make a real video of coarse noise that drifts, another for each seed."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (6, 6, 3), dtype=np.uint8)
    large = np.kron(coarse, np.ones((16, 16, 1), np.uint8))
    step = int(rng.integers(1, 9))
    shown = [np.roll(large, k * step, axis=int(seed) % 2)[:64, :64] for k in range(frames)]
    return make_video(shown, codec=codec, rate=10)


def support_files(clips: Mapping[str, Sequence[bytes]]) -> Files:
    """Give clips by label as multipart parts."""
    return [
        (f"support[{label}]", (f"{number}.mp4", clip, "video/mp4"))
        for label, given in clips.items()
        for number, clip in enumerate(given)
    ]


def query_files(*clips: bytes) -> Files:
    """Give query clips as multipart parts."""
    return [("clip", (f"{number}.mp4", clip, "video/mp4")) for number, clip in enumerate(clips)]


def base64_of(clip: bytes) -> str:
    """Give bytes as JSON carries them."""
    return base64.b64encode(clip).decode()


def register(
    client: httpx.Client, clips: Mapping[str, Sequence[bytes]], **data: str
) -> dict[str, Any]:
    """Register a task that must succeed, and return it."""
    answer = client.post("/tasks", files=support_files(clips), data=data)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def classify(client: httpx.Client, task_id: str, *clips: bytes) -> dict[str, Any]:
    """Classify clips, which must succeed, and return the answer."""
    answer = client.post(f"/tasks/{task_id}/classify", files=query_files(*clips))
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def scores(answer: Mapping[str, Any]) -> list[dict[str, tuple[float, ...]]]:
    """Give all numbers of an answer, by label."""
    return [
        {
            ranked["label"]: (
                ranked["score"],
                ranked["video"],
                *([] if ranked["text"] is None else [ranked["text"], *(ranked["stages"] or ())]),
                result["nearest"],
            )
            for ranked in result["ranking"]
        }
        for result in answer["results"]
    ]


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Assert that an answer is a problem of the one shape, and return it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["code"] == code, body
    assert body["status"] == status
    assert body["type"] == f"urn:kshot:problem:{code}"
    assert body["title"]
    assert body["detail"]
    assert body["instance"] == answer.headers["x-request-id"]
    assert isinstance(body["retryable"], bool)
    return body


@contextmanager
def serving(settings: Settings, port: int = 0) -> Iterator[httpx.Client]:
    """Run the real application under real uvicorn in a thread; give a client of it."""
    with serving_app(create_app(settings), port) as client:
        yield client


@contextmanager
def serving_app(app: FastAPI, port: int = 0) -> Iterator[httpx.Client]:
    """Run an application under real uvicorn in a thread; give a client of it."""
    with socket.create_server(("127.0.0.1", port)) as listening:
        port = listening.getsockname()[1]
        config = uvicorn.Config(
            app, http=Protocol, lifespan="on", log_config=None, access_log=False
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listening],), name="uvicorn")
        thread.start()
        try:
            _until(lambda: server.started or not thread.is_alive(), "the service to start")
            assert server.started, "The service did not start."
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join(timeout=30)
            freeze_again()


def _until(reached: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + START_S
    while not reached():
        assert time.monotonic() < deadline, f"Waited {START_S:g} s for {what}."
        time.sleep(0.02)


def make_key(store: str, scopes: str = "read,classify,write") -> str:
    """Make a key as an operator does, and give its token."""
    command = [sys.executable, "-m", "service.admin", "keys", "--store", store]
    done = subprocess.run(
        [*command, "make", "--name", "A person", "--scopes", scopes],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout.strip().split()[-1]
