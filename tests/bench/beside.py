"""Queries beside a registration: what they take with it against without, in turns."""

import json
import statistics
import threading
import time
from typing import Any

import httpx

from tests.bench.bars import Bar
from tests.bench.bodies import task_body
from tests.bench.schedule import REJECTED, Sample, percentile
from tests.bench.target import PATIENCE_S, Target

LONG_S = 60.0  # deadline where none should pass
SHOTS = 13  # of 5 labels: 65 clips


class Registration:
    """A task of many clips that is registered again and again, as long as the context lasts.

    Args:
        server: Running.
        body: Of the task.
    """

    def __init__(self, server: Target, body: bytes) -> None:
        self._server = server
        self._body = body
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._register)
        self.statuses: list[int] = []

    def __enter__(self) -> "Registration":
        self._thread.start()
        while not self._server.state()["held"]["frames"]:
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._server.settled(within_s=PATIENCE_S)

    def _register(self) -> None:
        headers = {"Content-Type": "application/json", "Prefer": "wait=0"}
        with httpx.Client(base_url=str(self._server.client.base_url), timeout=PATIENCE_S) as client:
            while not self._over.is_set():
                made = client.post("/v1/tasks", content=self._body, headers=headers)
                self.statuses.append(made.status_code)
                url = f"/v1/tasks/{made.json()['id']}" if made.is_success else ""
                while url and not self._over.is_set():
                    if client.get(url).json()["status"] != "processing":
                        break
                    time.sleep(0.1)
                if url:
                    client.delete(url)


def beside(server: Target, rounds: int, requests: int) -> tuple[list[Bar], dict[str, Any]]:
    """One query after the other, alone and beside a registration, round by round."""
    model = server.client.get("/v1/info").json()["model"]
    body = task_body(model["frames"], model["size"], shots=SHOTS)
    alone: list[list[Sample]] = []
    busy: list[list[Sample]] = []
    registered: list[int] = []

    def ask(into: list[list[Sample]]) -> None:
        into.append(server.load(timeout_s=LONG_S, clients=1, requests=requests).samples)

    for _ in range(rounds):
        ask(alone)
        with Registration(server, body) as registration:
            ask(busy)
        registered += registration.statuses
    refused = sum(one.status in REJECTED for samples in busy for one in samples)
    ratios = {
        part: statistics.median(
            _took(with_it, part) / _took(without, part)
            for with_it, without in zip(busy, alone, strict=True)
        )
        for part in (50, 99)
    }
    what = f"beside a registration of {len(json.loads(body)['labels']) * SHOTS} clips"
    bars = [
        Bar(f"{what}: queries refused", refused, "<=", 0),
        Bar(f"{what}: p50 / p50 alone", ratios[50], "<=", 1.5),
        Bar(f"{what}: p99 / p99 alone", ratios[99], "<=", 3),
    ]
    sides = {"alone": alone, "beside": busy}
    return bars, {
        f"{name}_p{part}_ms": [round(1e3 * _took(samples, part)) for samples in of_side]
        for name, of_side in sides.items()
        for part in (50, 99)
    } | {"requests_a_round": requests, "registered": registered}


def _took(samples: list[Sample], percent: float) -> float:
    return percentile([one.latency_s for one in samples if one.status == 200], percent)
