"""A Redis that stands still, its process stopped: requests are refused, and nothing is left over.

What a request began goes on behind it and fails when the store's own patience ends. Nobody waits
for it then, and asyncio would complain of each.
"""

import gc
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from service.http import problems
from service.logs import Seldom
from service.settings import Settings
from tests.redis_server import RedisServer, redis_server
from tests.serving import moving_clip, query_files, register, serving, support_files

CLIPS = {"jump": [moving_clip(1)], "wave": [moving_clip(3)]}
PATIENCE_S = 0.6  # of the store, in the place of ten seconds


@contextmanager
def stalled(server: RedisServer) -> Iterator[None]:
    """Stop the process of a Redis for a while."""
    assert server.process is not None
    server.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.process.send_signal(signal.SIGCONT)


def ask(client: httpx.Client, task_id: str, number: int) -> int | None:
    """Send one request that gives up before the store does; None where the client left first."""
    soon = {"x-request-timeout-ms": "150"}
    try:
        if number % 4 == 0:
            files = query_files(CLIPS["jump"][0])
            answer = client.post(f"/tasks/{'0' * 32}/classify", files=files, headers=soon)
        elif number % 4 == 1:
            answer = client.post("/tasks", files=support_files(CLIPS), timeout=0.4)
        elif number % 4 == 2:
            answer = client.get(f"/tasks/{task_id}", timeout=0.2)
        else:
            answer = client.get("/tasks")
    except httpx.TimeoutException:
        return None
    return answer.status_code


def test_a_redis_that_stalls_leaves_no_task_behind(
    settings: Settings,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(problems, "SELDOM", Seldom(pause_s=60.0))  # another test may have told
    with redis_server(tmp_path / "redis") as server:
        store = f"{server.url}?socket_timeout={PATIENCE_S}"
        with serving(settings.model_copy(update={"store": store})) as client:
            task = register(client, CLIPS)
            with stalled(server), ThreadPoolExecutor(16) as threads:
                statuses = set(threads.map(lambda n: ask(client, task["id"], n), range(48)))
                time.sleep(3 * PATIENCE_S)  # what was begun fails now
            assert statuses <= {None, 503, 504}
            assert len(statuses) > 1
            assert client.get(f"/tasks/{task['id']}").json()["id"] == task["id"]
    gc.collect()  # a lost error is told of when its task goes
    lost = [each for each in caplog.records if each.name in ("asyncio", "kshot.background")]
    assert not [each for each in lost if each.levelname == "ERROR"]
    (told,) = [each for each in caplog.records if "store-unavailable" in each.getMessage()]
    assert (told.levelname, told.exc_info) == ("WARNING", None)


def test_lines_of_a_kind_are_seldom_and_say_how_many_were_held_back() -> None:
    now = [5.0]
    seldom = Seldom(10.0, clock=lambda: now[0])
    assert [seldom.held_back("away") for _ in range(3)] == [0, None, None]
    assert seldom.held_back("full") == 0
    now[0] += 10
    assert [seldom.held_back("away") for _ in range(2)] == [2, None]
    now[0] += 10
    assert seldom.held_back("away") == 1
