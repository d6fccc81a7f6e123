"""`python -m service` as an operator meets it: it stops politely, comes back, refuses plainly."""

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from model.checkpoint import save_checkpoint
from tests.model.tiny import tiny_recognizer
from tests.redis_server import redis_server
from tests.serving import ROOT, ServiceProcess, classify, moving_clip, register, scores

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
    first = ServiceProcess(settings, tmp_path / "log")
    first.wait_ready()
    with httpx.Client(base_url=first.url, timeout=60) as client:
        task = register(client, CLIPS)
        before = scores(classify(client, task["id"], *QUERIES))
        with ThreadPoolExecutor(4) as threads:
            running = [threads.submit(classify, client, task["id"], *QUERIES) for _ in range(4)]
            time.sleep(0.5)  # they are accepted by now, and not all are answered
            assert first.stop() == 0
            for work in running:
                close(scores(work.result()), before)
    second = ServiceProcess(settings, tmp_path / "log")
    try:
        second.wait_ready()
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


def refusal(**env: str) -> str:
    """Start the service with an environment it must refuse; give its last words."""
    plain = {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", **env}
    done = subprocess.run(
        [sys.executable, "-m", "service"],
        cwd=ROOT,
        env=plain,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_what_cannot_be_served_is_refused_in_one_sentence(tmp_path: Path) -> None:
    assert "KSHOT_STOER" in refusal(KSHOT_STOER="x")
    said = refusal(
        KSHOT_CHECKPOINT=str(tmp_path / "nothing"), KSHOT_STORE=f"sqlite:{tmp_path / 's'}"
    )
    assert "nothing has no method.json" in said
    joint = tiny_recognizer(query_context="joint")
    save_checkpoint(joint, tmp_path / "joint", "# For tests\n")
    said = refusal(KSHOT_CHECKPOINT=str(tmp_path / "joint"), KSHOT_STORE=f"sqlite:{tmp_path / 's'}")
    assert "query_context 'joint'" in said
