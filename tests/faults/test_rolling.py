"""F9: two replicas on one Redis that restart in turn under load."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.bench.bars import Bar
from tests.faults.figures import LONG, linger, p99_ms, tell
from tests.faults.load import asking
from tests.faults.stage import Asked, asked, service
from tests.forked import ForkedService
from tests.redis_server import redis_server

ROUNDS = 5 if LONG else 1  # of two restarts each
RETRIES = 200
RETRY_S = 0.05
AGAIN = ("503 ", "429 ", "409 not-ready", "broken")  # what a client may send again


@dataclass
class Balancer:
    """Gives clients a replica, and another one when that does not take their request."""

    urls: list[str]
    lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, clients: Asked, number: int) -> str:
        for attempt in range(RETRIES):
            with self.lock:
                url = self.urls[(number + attempt) % len(self.urls)]
            told = clients.classify(number, url)
            if not told.startswith(AGAIN):
                return told
            time.sleep(RETRY_S)
        return told


@pytest.fixture
def settings(tiny: dict[str, str], tmp_path: Path) -> Iterator[dict[str, str]]:
    with redis_server(tmp_path / "redis") as server:
        yield {**tiny, "store": server.url}


def test_f9_replicas_that_restart_in_turn_under_load_lose_no_task_and_refuse_nothing_for_good(
    settings: dict[str, str], tmp_path: Path
) -> None:
    with service(settings, tmp_path / "one") as one, service(settings, tmp_path / "two") as two:
        replicas, balancer = [one, two], Balancer([one.url, two.url])
        try:
            with asked(one.url, tasks=2, bodies=2) as clients:
                kept = [*clients.tasks]
                with asking(lambda number: balancer.ask(clients, number), 4) as load:
                    load.wait(8)
                    linger()
                    begun = time.monotonic()
                    for _ in range(ROUNDS):
                        for place in (0, 1):
                            restart(replicas, place, balancer, settings, tmp_path)
                            kept.append(registered(balancer))
                    ended = time.monotonic()
                    load.wait(8)
                assert load.counts().keys() == {"right"}
                for url in balancer.urls:
                    found = clients.client(9).get(f"{url}/tasks", params={"limit": "100"}).json()
                    assert {task["id"] for task in found["tasks"]} == set(kept)
                tell(
                    "F9",
                    [
                        Bar(
                            "p99 while they restart / before",
                            p99_ms(load.between(begun, ended)) / p99_ms(load.between(0, begun)),
                            "<=",
                            2,
                        )
                    ],
                    restarts=2 * ROUNDS,
                    answers=len(load.outcomes),
                )
        finally:
            for replica in replicas:
                replica.kill()


def restart(
    replicas: list[ForkedService],
    place: int,
    balancer: Balancer,
    settings: dict[str, str],
    folder: Path,
) -> None:
    """Stop a replica as a deployment does, and put another in its place."""
    with balancer.lock:
        others = [url for url in balancer.urls if url != replicas[place].url]
        # the balancer still knows it for a moment, so that its last answers are seen
        balancer.urls = [*others, replicas[place].url]
    assert replicas[place].stop() == 0
    with balancer.lock:
        balancer.urls = others
    replicas[place] = ForkedService(settings, folder / f"replica-{time.monotonic_ns()}")
    with balancer.lock:
        balancer.urls = [*others, replicas[place].url]


def registered(balancer: Balancer) -> str:
    """Register a task at the newest replica."""
    newest = Asked(balancer.urls[-1], [], [])
    answer = newest.register()
    newest.close()
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])
