"""F1, F2, F3: a Redis that is killed, slow, silent or reset, and one that starts again."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.bench.bars import Bar
from tests.faults.figures import LONG, linger, p99_ms, tell
from tests.faults.load import Load, asking, until
from tests.faults.proxy import Proxy, proxy
from tests.faults.stage import CLIPS, Asked, asked, health_s, service
from tests.redis_server import RedisServer, redis_server
from tests.serving import problem

REPLY_S = 2.0  # of the store's patience, for ten seconds
CLIENTS = 8 if LONG else 3
KILLS = 10 if LONG else 2


@dataclass
class Stage:
    """A service whose Redis stands behind a proxy."""

    redis: RedisServer
    proxy: Proxy
    asked: Asked


@pytest.fixture(scope="module")
def stage(tiny: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder: Path = tmp_path_factory.mktemp("redis")
    with redis_server(folder / "redis") as server, proxy(server.port) as between:
        store = f"redis://127.0.0.1:{between.port}/0?socket_timeout={REPLY_S:g}"
        with (
            service({**tiny, "store": store}, folder / "log") as process,
            asked(process.url) as clients,
        ):
            yield Stage(server, between, clients)


def registered(clients: Asked) -> bool:
    return clients.register().status_code == 201


def test_f1_warm_tasks_answer_while_redis_is_killed_and_registrations_are_told_to_retry(
    stage: Stage,
) -> None:
    with asking(stage.asked.classify, CLIENTS) as load:
        load.wait(6)
        linger()
        stage.redis.kill()
        gone = time.monotonic()
        load.wait(10)
        linger()
        refused = stage.asked.register()
        problem(refused, 503, "store-unavailable")
        assert int(refused.headers["retry-after"]) >= 1
        stage.redis.start()
        back = time.monotonic()
        until(lambda: registered(stage.asked), "a registration after Redis is back")
        recovered = time.monotonic()
        load.wait(6)
        linger()
    assert load.counts().keys() == {"right"}
    away = load.between(gone, back)
    share = load.counts(gone, back)["right"] / len(away)
    tell(
        "F1",
        [
            Bar("warm tasks answered rightly while Redis is away", share, ">=", 0.99),
            Bar("recovery of registrations", recovered - back, "<=", 5, "s"),
        ],
        answers_s=round(len(away) / (back - gone), 1),
        p99_ms_before=p99_ms(load.between(0, gone)),
        p99_ms_away=p99_ms(away),
    )


@contextmanager
def late(stage: Stage) -> Iterator[None]:
    """Each reply takes longer than a known task waits for it."""
    stage.proxy.delay_s = 2.0 if LONG else 1.2
    yield
    stage.proxy.delay_s = 0.0


@contextmanager
def silent(stage: Stage) -> Iterator[None]:
    """Connections stand, and nothing comes."""
    stage.proxy.mode = "silent"
    yield
    stage.proxy.mode = "pass"


@contextmanager
def broken(stage: Stage) -> Iterator[None]:
    """Each reply ends in its middle with a reset."""
    before, stage.proxy.mode = stage.proxy.broken, "broken"
    yield
    stage.proxy.mode = "pass"
    assert stage.proxy.broken > before


@pytest.mark.parametrize("fault", [late, silent, broken])
def test_f2_a_redis_that_is_late_silent_or_reset_mixes_up_no_answer_and_is_not_asked_again_at_once(
    stage: Stage, fault: Callable[[Stage], Iterator[None]]
) -> None:
    clients = stage.asked
    with asking(clients.classify, CLIENTS) as load:
        load.wait(3)
        linger()
        calm_s = lags(clients)
        with fault(stage):
            begun = time.monotonic()
            load.wait(CLIENTS)  # who meets the fault first waits for a second
            pieces, since = stage.proxy.asked, time.monotonic()
            load.wait(20)
            spared = stage.proxy.asked - pieces
            answered = load.counts(since).total()
            with asking(clients.read, 2) as reads:
                reads.wait(1)
                linger()
                lag_s = lags(clients)
            ended = time.monotonic()
    until(lambda: clients.read(0) == "right", "a read once Redis does its work")
    assert load.counts().keys() == {"right"}
    assert reads.counts().keys() <= {"right", "503 store-unavailable", "504 deadline-exceeded"}
    assert [clients.read(number) for number in range(4)] == ["right"] * 4
    if fault is not broken:  # which costs no time
        assert spared < answered
    during = load.between(begun, ended)
    tell(
        f"F2 {fault.__name__}",
        [
            Bar("/livez during the fault, p99", 1e3 * lag_s, "<=", 50, "ms"),
            Bar("answers that were wrong or another's", float(wrong(load, reads)), "<=", 0),
        ],
        livez_p99_ms_before=round(1e3 * calm_s, 1),
        reads=reads.counts(),
        classify_p99_ms=p99_ms(during),
        answers_s=round(len(during) / (ended - begun), 1),
        asked_of_redis=spared,
        answered_meanwhile=answered,
    )


def lags(clients: Asked) -> float:
    """Ask for health some times, and give the p99."""
    times = sorted(health_s(clients.client(3000)) for _ in range(200 if LONG else 5))
    return times[int(0.99 * len(times))]


def wrong(*loads: Load) -> int:
    return sum(load.counts()["wrong"] for load in loads)


def test_f3_a_redis_that_starts_again_amid_registrations_loses_no_task_and_lists_none_half_written(
    stage: Stage,
) -> None:
    acknowledged: list[str] = []
    client = stage.asked.client()
    before = set(listed(client))

    def register(number: int) -> str:
        answer = stage.asked.register(number)
        if answer.status_code in (201, 202):
            acknowledged.append(answer.json()["id"])
            return "kept"
        assert answer.headers["retry-after"]
        return str(answer.json()["code"])

    with asking(register, 3) as load:
        for _ in range(KILLS):
            load.wait(2, "kept")
            stage.redis.kill()
            load.wait(1, "store-unavailable")
            stage.redis.start()
        load.wait(2, "kept")
    until(lambda: stage.asked.read(0) == "right")
    found = set(listed(client)) - before
    lost = set(acknowledged) - found
    half = [task_id for task_id in found if not is_whole(client, task_id)]
    assert not lost
    assert not half
    assert load.counts().keys() == {"kept", "store-unavailable"}
    with stage.redis.client() as behind:
        assert all(behind.ttl(key) > 0 for key in behind.keys("kshot:aside:*"))
    tell(
        "F3",
        [Bar("acknowledged tasks that are lost", float(len(lost)), "<=", 0)],
        kills=KILLS,
        acknowledged=len(acknowledged),
        kept_though_not_acknowledged=len(found - set(acknowledged)),
        outcomes=Counter(load.counts()),
    )


def listed(client: httpx.Client) -> Iterator[str]:
    """Read all pages."""
    cursor: dict[str, str] = {}
    while True:
        page = client.get("/tasks", params={"limit": "100", **cursor}).json()
        yield from (task["id"] for task in page["tasks"])
        if not page["next_cursor"]:
            return
        cursor = {"cursor": page["next_cursor"]}


def is_whole(client: httpx.Client, task_id: str) -> bool:
    """Tell whether a task has all its clips, and each clip its pictures."""
    path = f"/tasks/{task_id}"
    until(lambda: client.get(path).json()["status"] == "ready", f"task {task_id}")
    clips = client.get(path).json()["clips"]
    shown = [client.get(f"{path}/clips/{clip['clip_id']}/frames").status_code for clip in clips]
    return shown == [200] * sum(map(len, CLIPS.values()))
