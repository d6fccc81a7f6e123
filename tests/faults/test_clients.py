"""F8 and F12: clients that leave at any stage, and clients that send slowly or nothing."""

import random
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from service.http import server
from service.tasks.allowance import NOTHING
from tests.bench.bars import Bar
from tests.faults.figures import LONG, LONG_S, p99_ms, tell
from tests.faults.load import asking, until
from tests.faults.stage import CLIPS, Asked, asked, query_body, service
from tests.serving import classify, moving_clip, register, support_files

Served = tuple[httpx.Client, FastAPI]
IDLE = 10_000 if LONG else 200
SLOW = 200 if LONG else 50
LEAVERS = 300 if LONG else 45
HEAD = b"GET /livez HTTP/1.1\r\nHost: x\r\nx-slow: "


def address_of(url: httpx.URL | str) -> tuple[str, int]:
    parsed = httpx.URL(url)
    return parsed.host, parsed.port or 80


def whole_request(path: str, body: bytes, kind: str) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def test_f8_clients_that_leave_at_any_stage_leave_no_credit_no_work_and_no_task(
    served: Served,
) -> None:
    client, app = served
    task, before = register(client, CLIPS)["id"], len(client.get("/tasks").json()["tasks"])
    form = client.build_request("POST", "/tasks", files=support_files(CLIPS))
    requests = [
        whole_request(f"/tasks/{task}/classify", query_body(1), "application/json"),
        whole_request("/tasks", form.read(), form.headers["content-type"]),
    ]
    engine, rng = app.state.service.engine, random.Random(8)
    for number in range(LEAVERS):
        request = requests[number % 2]
        stages = (rng.randrange(len(request)), len(request) - 1, len(request))
        with socket.create_connection(address_of(client.base_url)) as leaving:
            leaving.sendall(request[: stages[number % 3]])
            if number % 3 == 2:
                time.sleep(rng.uniform(0, 0.03))
    until(lambda: app.state.ledger.held == NOTHING, f"all credits: {app.state.ledger.held}")
    until(lambda: engine.queued_frames == 0, "an empty queue")
    tasks = app.state.service.tasks
    until(lambda: not tasks._undoing and not tasks.supports.preparations, "no work for nobody")

    def listed() -> list[dict[str, object]]:
        return list(client.get("/tasks", params={"limit": "100"}).json()["tasks"])

    until(lambda: {row["status"] for row in listed()} == {"ready"}, "only tasks that are ready")
    classify(client, task, moving_clip(8))
    tell(
        "F8",
        [Bar("credits that did not come back", float(app.state.ledger.held != NOTHING), "<=", 0)],
        left=LEAVERS,
        tasks_that_were_complete=len(listed()) - before,
    )


@contextmanager
def connections(address: tuple[str, int], count: int, sent: bytes) -> Iterator[list[socket.socket]]:
    """Open connections that send so much, and nothing more."""
    with ExitStack() as stack:
        made = []
        for _ in range(count):
            raw = stack.enter_context(socket.create_connection(address, timeout=60))
            raw.sendall(sent)
            made.append(raw)
        yield made


def closed(raw: socket.socket) -> bool:
    """Tell whether the server has hung up, whatever it said before."""
    raw.setblocking(False)
    try:
        while raw.recv(4096):
            pass
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def test_f12_slow_heads_and_idle_connections_are_shed_while_others_are_answered(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, _ = served
    task, address = register(client, CLIPS)["id"], address_of(client.base_url)
    monkeypatch.setattr(server, "HEAD_S", 2.0)
    with connections(address, IDLE, b"") as idle, connections(address, SLOW, HEAD) as slow:
        classify(client, task, moving_clip(8))
        until(lambda: all(map(closed, slow)), "the slow to be shed")
        until(lambda: all(map(closed, idle)), "the idle to be shed")
    classify(client, task, moving_clip(8))


@pytest.mark.skipif(not LONG, reason="ten thousand connections are for `make soak`")
def test_f12_ten_thousand_idle_connections_slow_nobody(
    tiny: dict[str, str], tmp_path: Path
) -> None:
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert files > IDLE + SLOW, f"this shell may open {files} files"
    settings = {**tiny, "store": f"sqlite:{tmp_path / 'kshot.db'}"}
    with service(settings, tmp_path / "log") as process, asked(process.url) as clients:
        calm = measured(clients)
        address = address_of(process.url)
        with connections(address, IDLE, b""), connections(address, SLOW, HEAD):
            crowded = measured(clients)
            begun = time.monotonic()
        late = time.monotonic()
    tell(
        "F12",
        [Bar("p99 among 10,000 connections / without them", crowded / calm, "<=", 1.5)],
        p99_ms_calm=calm,
        p99_ms_crowded=crowded,
        closing_s=round(late - begun, 2),
    )


def measured(clients: Asked) -> float:
    with asking(clients.classify, 4, 40.0) as load:
        time.sleep(LONG_S)
    assert load.counts().keys() == {"right"}
    return p99_ms(load.outcomes)
