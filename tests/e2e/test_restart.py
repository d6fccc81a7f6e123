"""The service as an operator meets it: it stops politely, comes back, refuses plainly."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from model.checkpoint import save_checkpoint
from tests.forked import ForkedCommand, ForkedService
from tests.model.tiny import tiny_recognizer
from tests.redis_server import redis_server
from tests.serving import classify, moving_clip, register, scores

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
