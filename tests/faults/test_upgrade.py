"""F19: another checkpoint takes the place of the one that is served, under load."""

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.bench.bars import Bar
from tests.faults.figures import linger, p99_ms, tell
from tests.faults.load import asking, until
from tests.faults.stage import EXACT, JSON, Asked, Scores, asked, scores_of, service
from tests.serving import tiny_checkpoint

READERS, WRITERS = 3, 2
AGAIN = {"503", "429", "409 not-ready"}  # what a client may send again
MOSTLY = 0.9  # share of requests that are answered at once


@dataclass(frozen=True, slots=True)
class Told:
    """An answer to a query, when it was asked, and by which model."""

    asked: tuple[int, int]
    revision: str
    scores: Scores
    sent: float
    done: float


@dataclass
class Clients:
    """Clients that note what they were told, and what they made.

    Args:
        known: Tasks that stand from the beginning.
    """

    known: Asked
    told: list[Told] = field(default_factory=list)
    made: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    turn: int = 0

    def ask(self, number: int) -> str:
        """Classify, or register a task, classify by it and change it."""
        return self._classify(number) if number < READERS else self._write(number)

    def _classify(self, number: int) -> str:
        with self.lock:
            self.turn += 1
            turn = self.turn
        task, body = turn % len(self.known.tasks), turn % len(self.known.bodies)
        path, sent = f"/tasks/{self.known.tasks[task]}/classify", time.monotonic()
        answer = self.known.client(number).post(path, content=self.known.bodies[body], headers=JSON)
        if answer.status_code == 200:
            told = answer.json()
            one = (task, body), told["model_revision"], scores_of(told)
            self.told.append(Told(*one, sent, time.monotonic()))
        return outcome(answer)

    def _write(self, number: int) -> str:
        made = self.known.register(number)
        if made.status_code not in (201, 202):
            return outcome(made)
        task_id, client = made.json()["id"], self.known.client(number)
        self.made.append(task_id)
        asked = client.post(
            f"/tasks/{task_id}/classify", content=self.known.bodies[0], headers=JSON
        )
        renamed = client.patch(f"/tasks/{task_id}/labels/wave", json={"label": "greet"})
        worst = max((asked, renamed), key=lambda each: each.status_code)
        return outcome(worst)


def outcome(answer: httpx.Response) -> str:
    """Say what came of a request: `right`, or the code of a refusal."""
    if answer.is_success:
        return "right"
    return f"{answer.status_code} {answer.json()['code']}"


def wrong(told: Sequence[Told], expected: dict[str, dict[tuple[int, int], Scores]]) -> list[Told]:
    """Give the answers that are not those of the model that they name."""
    return [
        one
        for one in told
        if one.scores != pytest.approx(expected[one.revision][one.asked], abs=EXACT)
    ]


def went_back(told: Sequence[Told], old: str) -> list[Told]:
    """Give the answers of the old model to who asked after the new one had answered for a task."""
    switched: dict[int, float] = {}
    for one in told:
        if one.revision != old:
            first = switched.get(one.asked[0], one.done)
            switched[one.asked[0]] = min(first, one.done)
    return [
        one
        for one in told
        if one.revision == old and one.sent > switched.get(one.asked[0], float("inf"))
    ]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    tiny_checkpoint(folder / "second", seed=1)
    return folder


@pytest.fixture
def upgraded(tiny: dict[str, str], models: Path, tmp_path: Path) -> Iterator[Clients]:
    store = f"sqlite:{tmp_path / 'kshot.db'}"
    settings = {**tiny, "store": store, "models_dir": str(models)}
    with service(settings, tmp_path / "log") as process, asked(process.url, tasks=6) as known:
        yield Clients(known)


def test_f19_another_model_takes_over_under_load_and_no_task_is_lost_and_nothing_refused_for_good(
    upgraded: Clients,
) -> None:
    known = upgraded.known
    client = known.client()
    assert len({str(scores) for scores in known.expected.values()}) == len(known.expected)
    old = client.get("/v1/admin/model").json()["model_revision"]
    expected = {old: dict(known.expected)}
    with asking(upgraded.ask, READERS + WRITERS) as load:
        load.wait(20)
        linger()
        begun = time.monotonic()
        assert client.post("/v1/admin/model", json={"checkpoint": "second"}).status_code == 202

        def done() -> bool:
            swap = client.get("/v1/admin/model").json()["swap"]
            assert swap["state"] != "failed", swap
            return bool(swap["state"] == "done")

        until(done, "the other model")
        ended = time.monotonic()
        linger()
        load.wait(20)
    swap = client.get("/v1/admin/model").json()
    new = swap["model_revision"]
    assert new != old
    assert swap["swap"]["left"] == 0
    known.learn()
    expected[new] = dict(known.expected)

    refused = {what for what in load.counts() if what != "right"}
    assert all(what.startswith(tuple(AGAIN)) for what in refused), load.counts()
    assert load.counts()["right"] >= MOSTLY * load.counts().total(), load.counts()
    assert {one.revision for one in upgraded.told} == {old, new}
    assert not wrong(upgraded.told, expected)
    assert not went_back(upgraded.told, old)
    lost = [task for task in [*known.tasks, *upgraded.made] if answered_by(client, task) != new]
    assert not lost
    tell(
        "F19",
        [
            Bar(
                "p99 while it loads, warms and encodes / before",
                p99_ms(load.between(begun, ended)) / p99_ms(load.between(0, begun)),
                "<=",
                4,
            )
        ],
        outcomes=load.counts(),
        tasks=len(known.tasks) + len(upgraded.made),
        swap_s=round(ended - begun, 1),
        while_it_went=load.counts(begun, ended),
    )


def answered_by(client: httpx.Client, task: str) -> str:
    """Read a task, and tell which model answers for it."""
    return str(client.get(f"/tasks/{task}").json()["model_revision"])
