"""The service as an operator meets it: it stops politely, comes back, refuses plainly."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from deploy.local_service import free_port
from model.checkpoint import save_checkpoint
from service.__main__ import leave
from service.background import until
from service.http.server import server_of
from service.settings import Settings
from tests.forked import CONTEXT, ForkedCommand, ForkedService
from tests.model.tiny import tiny_recognizer
from tests.redis_server import redis_server
from tests.serving import (
    classify,
    moving_clip,
    problem,
    register,
    scores,
    support_files,
)

CLIPS = {"jump": [moving_clip(1), moving_clip(2)], "wave": [moving_clip(3)]}
QUERIES = [moving_clip(seed) for seed in range(10, 14)]


@pytest.fixture(params=["sqlite", "redis"])
def settings(
    request: pytest.FixtureRequest, checkpoint: Path, tmp_path: Path
) -> Iterator[dict[str, str]]:
    common = {"checkpoint": str(checkpoint), "threads": "1", "decode_workers": "1"}
    if request.param == "sqlite":
        yield {**common, "store": f"sqlite:{tmp_path / 'kshot.db'}"}
        return
    with redis_server(tmp_path / "redis", appendfsync="always") as server:
        yield {**common, "store": server.url}


def left_with_a_thread(code: int) -> None:
    threading.Thread(target=time.sleep, args=(600,)).start()
    leave(code)


def test_a_process_that_leaves_waits_for_no_thread() -> None:
    process = CONTEXT.Process(target=left_with_a_thread, args=(3,))
    process.start()
    process.join(60)
    assert process.exitcode == 3


def test_a_restart_keeps_tasks_and_their_scores(settings: dict[str, str], tmp_path: Path) -> None:
    first = ForkedService(settings, tmp_path / "log")
    with httpx.Client(base_url=first.url, timeout=60) as client:
        task = register(client, CLIPS)
        before = scores(classify(client, task["id"], *QUERIES))
        with ThreadPoolExecutor(4) as threads:
            running = [threads.submit(classify, client, task["id"], *QUERIES) for _ in range(4)]
            time.sleep(0.5)  # they are accepted by now, and not all are answered
            assert first.stop() == 0
            for work in running:
                close(scores(work.result()), before)
    second = ForkedService(settings, tmp_path / "log")
    try:
        with httpx.Client(base_url=second.url, timeout=60) as client:
            assert client.get(f"/tasks/{task['id']}").json() == task
            after = scores(classify(client, task["id"], *QUERIES))
        close(after, before)
        lines = second.log_lines()
        told = [line["message"] for line in lines if "recent tasks ready" in line["message"]]
        assert told[0].startswith("Made 1 of 1"), "the stop has noted the use of the task"
        assert {line["route"] for line in lines if "route" in line} >= {"/tasks/{task_id}"}
    finally:
        second.kill()


def close(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> None:
    for left, right in zip(one, other, strict=True):
        for label, numbers in left.items():
            assert numbers == pytest.approx(right[label], abs=1e-5)


def refusal(log: Path, **env: str) -> str:
    """Start the service with an environment it must refuse; give what it says."""
    log.unlink(missing_ok=True)
    code = ForkedCommand("service.__main__", env=env, log=log).wait()
    said = log.read_text()
    assert code == 2, said
    assert "Traceback" not in said
    return said


def test_what_cannot_be_served_is_refused_in_one_sentence(tmp_path: Path) -> None:
    log, store = tmp_path / "log", f"sqlite:{tmp_path / 's'}"
    assert "KSHOT_STOER" in refusal(log, KSHOT_STOER="x")
    said = refusal(log, KSHOT_CHECKPOINT=str(tmp_path / "nothing"), KSHOT_STORE=store)
    assert f"There is no model '{tmp_path / 'nothing'}'" in said
    (tmp_path / "empty").mkdir()
    said = refusal(log, KSHOT_CHECKPOINT=str(tmp_path / "empty"), KSHOT_STORE=store)
    assert "empty has no method.json" in said
    joint = tiny_recognizer(query_context="joint")
    save_checkpoint(joint, tmp_path / "joint", "# For tests\n")
    said = refusal(log, KSHOT_CHECKPOINT=str(tmp_path / "joint"), KSHOT_STORE=store)
    assert "query_context 'joint'" in said


def test_a_stop_answers_what_it_cuts_off_and_takes_no_longer_than_it_may(
    checkpoint: Path, tmp_path: Path
) -> None:
    grace_s = 1
    settings = {
        "checkpoint": str(checkpoint),
        "store": f"sqlite:{tmp_path / 'kshot.db'}",
        "threads": "1",
        "decode_workers": "1",
        "stop_grace_s": str(grace_s),
    }
    long = moving_clip(1, frames=550)
    service = ForkedService(settings, tmp_path / "log")
    address = "127.0.0.1", int(service.url.rpartition(":")[2])
    head = b"POST /tasks HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    with (
        httpx.Client(base_url=service.url, timeout=60) as client,
        socket.create_connection(address, timeout=30) as sending,
        ThreadPoolExecutor(1) as threads,
    ):
        files = support_files({f"label {number}": [long] * 16 for number in range(8)})
        registering = threads.submit(client.post, "/tasks", files=files)
        sending.sendall(head + b"Content-Length: 1000\r\n\r\n{")
        time.sleep(0.5)
        begun = time.monotonic()
        assert service.stop() == 0
        took_s = time.monotonic() - begun
        assert problem(registering.result(), 503, "server-stopping")["retryable"]
        assert registering.result().headers["retry-after"]
        assert b"server-stopping" in sending.recv(8192)
    assert took_s < grace_s + 2
    assert "Traceback" not in service.log.read_text()


async def test_a_request_that_is_on_its_way_at_a_stop_is_answered_and_its_connection_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("service.http.server.LINGER_S", 20.0)
    app, settings = FastAPI(), Settings(port=free_port())
    app.get("/here")(lambda: True)
    request = b"GET /here HTTP/1.1\r\nHost: x\r\n\r\n"
    server = server_of(app, settings)

    async def started() -> bool:
        return server.started

    async def closed() -> bool:
        return not server.servers[0].is_serving()

    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(server.serve())
        await until(started, 0.01)
        reader, writer = await asyncio.open_connection(settings.host, settings.port)
        for stopping in (False, True):
            if stopping:
                server.should_exit = True
                await until(closed, 0.01)
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            assert (b"connection: close" in head.lower()) is stopping
            assert await reader.readexactly(4) == b"true"
        assert await reader.read() == b""
        await serving
        writer.close()
        await writer.wait_closed()
