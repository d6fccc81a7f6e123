"""A service process with tasks, and clients that know what it should answer."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.bench.bodies import pictures
from tests.forked import ForkedService
from tests.serving import moving_clip, support_files

Clips = Mapping[str, Sequence[bytes]]
JSON = {"content-type": "application/json", "x-request-timeout-ms": "60000"}
EXACT = 1e-5  # of scores: a softmax in fp32
Scores = dict[str, float]


def clips_of(task: int) -> Clips:
    """Make the clips of a task, other ones for each number."""
    one, two, three = (moving_clip(10 * task + number) for number in (1, 2, 3))
    return {"jump": [one, two], "wave": [three]}


CLIPS = clips_of(0)


def query_body(seed: int) -> bytes:
    """Make a query of one clip of 8 JPEG pictures."""
    noise = np.random.default_rng(seed).integers(0, 255, (8, 4, 4, 3), dtype=np.uint8)
    frames = np.kron(noise, np.ones((1, 6, 6, 1), np.uint8))
    return json.dumps({"clips": [{"frames": pictures(frames)}]}).encode()


def scores_of(answer: Mapping[str, Any]) -> Scores:
    """Read an answer to one clip."""
    (result,) = answer["results"]
    return {ranked["label"]: ranked["score"] for ranked in result["ranking"]}


@dataclass
class Asked:
    """Warm tasks of one service, what each query scores there, and clients that compare.

    Args:
        url: Of the service.
        tasks: Ids.
        bodies: Queries.
    """

    url: str
    tasks: list[str]
    bodies: list[bytes]
    expected: dict[tuple[int, int], Scores] = field(default_factory=dict)
    clients: dict[int, httpx.Client] = field(default_factory=dict)

    def client(self, number: int = -1) -> httpx.Client:
        """Give each thread a client of its own."""
        if number not in self.clients:
            limits = httpx.Limits(keepalive_expiry=2)  # before the server closes what is idle
            self.clients[number] = httpx.Client(base_url=self.url, timeout=120, limits=limits)
        return self.clients[number]

    def learn(self) -> None:
        """Note what every query scores now."""
        for task, task_id in enumerate(self.tasks):
            for body, content in enumerate(self.bodies):
                path = f"/tasks/{task_id}/classify"
                answer = self.client().post(path, content=content, headers=JSON)
                assert answer.status_code == 200, answer.text
                self.expected[task, body] = scores_of(answer.json())

    def classify(self, number: int, url: str | None = None) -> str:
        """Ask a query: `right`, `wrong`, the code of a refusal, or `broken` for no answer."""
        task, body = number % len(self.tasks), number // len(self.tasks) % len(self.bodies)
        path = f"{url or self.url}/tasks/{self.tasks[task]}/classify"
        try:
            answer = self.client(number).post(path, content=self.bodies[body], headers=JSON)
        except httpx.TransportError:
            return "broken"
        if answer.status_code != 200:
            return f"{answer.status_code} {answer.json()['code']}"
        told = answer.json()
        right = told["task_id"] == self.tasks[task]
        right &= scores_of(told) == pytest.approx(self.expected[task, body], abs=EXACT)
        return "right" if right else "wrong"

    def read(self, number: int) -> str:
        """Read a task: `right`, `wrong`, or the code of a refusal."""
        task_id = self.tasks[number % len(self.tasks)]
        answer = self.client(1000 + number).get(f"/tasks/{task_id}", headers=JSON)
        if answer.status_code != 200:
            return f"{answer.status_code} {answer.json()['code']}"
        return "right" if answer.json()["id"] == task_id else "wrong"

    def register(self, number: int = 0, clips: Clips = CLIPS) -> httpx.Response:
        """Register a task."""
        files = support_files(clips)
        return self.client(2000 + number).post("/tasks", files=files)

    def close(self) -> None:
        for client in self.clients.values():
            client.close()


@contextmanager
def service(settings: Mapping[str, str], log: Path) -> Iterator[ForkedService]:
    """Run a service process, and end it as a crash would."""
    process = ForkedService(settings, log)
    try:
        yield process
    finally:
        process.kill()


@contextmanager
def asked(url: str, tasks: int = 2, bodies: int = 2) -> Iterator[Asked]:
    """Register tasks of different clips, and note what queries score there."""
    made = Asked(url, [], [query_body(seed) for seed in range(bodies)])
    try:
        for task in range(tasks):
            answer = made.register(clips=clips_of(task))
            assert answer.status_code == 201, answer.text
            made.tasks.append(answer.json()["id"])
        made.learn()
        yield made
    finally:
        made.close()


def health_s(client: httpx.Client) -> float:
    """Tell how long the service takes to say that it lives."""
    begun = time.monotonic()
    assert client.get("/livez").status_code == 200
    return time.monotonic() - begun
