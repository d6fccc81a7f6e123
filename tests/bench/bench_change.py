"""What changes cost, and whether any is lost where many change one task at a time.

    python -m tests.bench.bench_change
    python -m tests.bench.bench_change --parts writers --seconds 60 --writers 20

`cost`: adding one clip to a task of 25, beside registering 26 and classifying one, side by side,
and the seconds of a diagnosis of 10 labels of 10 clips. `writers`: two processes on one Redis,
whose answers are checked one by one (`tests/changing.py`). The 50 kills are
`KSHOT_KILLS=50 pytest tests/e2e/test_kill9.py -k acknowledged_change`. The last line of stdout is
JSON.
"""

import argparse
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx

from deploy.local_service import local_service
from tests.bench.bars import Bar, interleaved, machine, median_ratio, tell
from tests.changing import change_for, check
from tests.redis_server import redis_server
from tests.serving import moving_clip, query_files, support_files

LABELS, SHOTS = 5, 5
LARGE, DEEP = 10, 10
CLIP_BAR = 4.0  # one clip's change against one clip's classification
TASK_BAR = 0.2  # one clip's change against registering all 26
DIAGNOSIS_MS = 200.0
WARM_UP = 2


def timed(client: httpx.Client, verb: str, path: str, **body: Any) -> tuple[float, dict[str, Any]]:  # noqa: ANN401
    """Send a request that must succeed; return its seconds and answer."""
    begun = time.perf_counter()
    answer = client.request(verb, path, **body)
    took_s = time.perf_counter() - begun
    assert answer.is_success, answer.text
    return took_s, answer.json() if answer.content else {}


def clips_of(labels: int, shots: int) -> dict[str, list[bytes]]:
    """Make clips of some labels."""
    return {
        f"label {label}": [moving_clip(100 * label + shot) for shot in range(shots)]
        for label in range(labels)
    }


def cost(client: httpx.Client, rounds: int) -> tuple[list[Bar], dict[str, Any]]:
    """Measure one clip more, all clips anew, and one clip that is classified."""
    clips = clips_of(LABELS, SHOTS)
    extra = moving_clip(999)
    files = support_files(clips)
    task = timed(client, "POST", "/tasks", files=files)[1]["id"]
    encoded: list[int] = []

    def add() -> float:
        path = f"/tasks/{task}"
        took_s, made = timed(
            client, "POST", f"{path}/labels/label 0/clips", files=query_files(extra)
        )
        encoded.append(made["change"]["encoded_clips"])
        timed(client, "DELETE", f"{path}/clips/{made['change']['added_clips'][0]}")
        return took_s

    def register() -> float:
        more = support_files({**clips, "label 0": [*clips["label 0"], extra]})
        took_s, made = timed(client, "POST", "/tasks", files=more)
        client.delete(f"/tasks/{made['id']}")
        return took_s

    def classify() -> float:
        return timed(client, "POST", f"/tasks/{task}/classify", files=query_files(extra))[0]

    calls = {"add": add, "register": register, "classify": classify}
    interleaved(WARM_UP, calls)
    found = interleaved(rounds, calls)
    assert set(encoded) == {1}
    bars = [
        Bar(
            "adding one clip to 25 / registering 26",
            median_ratio(found["add"], found["register"]),
            "<=",
            TASK_BAR,
        ),
        Bar(
            "adding one clip to 25 / classifying one",
            median_ratio(found["add"], found["classify"]),
            "<=",
            CLIP_BAR,
        ),
        Bar(
            f"diagnosis of {LARGE} labels of {DEEP} clips",
            1e3 * diagnosis_s(client, rounds),
            "<=",
            DIAGNOSIS_MS,
            "ms",
        ),
    ]
    return bars, {f"{name}_s": values for name, values in found.items()}


def diagnosis_s(client: httpx.Client, rounds: int) -> float:
    """Diagnose a task of 100 clips, each time at a new revision; return the median."""
    made = timed(client, "POST", "/tasks", files=support_files(clips_of(LARGE, DEEP)))[1]
    path, found = f"/tasks/{made['id']}", list[float]()
    while timed(client, "GET", path)[1]["status"] != "ready":
        time.sleep(0.5)
    for number in range(WARM_UP + rounds):
        timed(client, "PATCH", path, json={"name": f"revision {number}"})
        found.append(timed(client, "GET", f"{path}/diagnosis")[0])
    return statistics.median(found[WARM_UP:])


def writers(seconds: float, count: int, checkpoint: str) -> tuple[list[Bar], dict[str, Any]]:
    """Let writers change one task through two processes on one Redis, and check every answer."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="kshot-change-"))
        server = stack.enter_context(redis_server(Path(folder) / "redis"))
        settings = {"KSHOT_STORE": server.url, "KSHOT_CHECKPOINT": checkpoint}
        settings |= {"KSHOT_MAX_LABELS": "64", "KSHOT_TENANT_SHARE": "1"}
        clients = [
            stack.enter_context(
                httpx.Client(base_url=stack.enter_context(local_service(settings)).url, timeout=120)
            )
            for _ in range(2)
        ]
        task = timed(clients[0], "POST", "/tasks", files=support_files(clips_of(2, 2)))[1]
        made = timed(
            clients[0],
            "PUT",
            f"/tasks/{task['id']}/labels/wave",
            files=query_files(moving_clip(7)),
        )[1]
        story = change_for(clients, task["id"], writers=count, readers=4, seconds=seconds)
        last = timed(clients[1], "GET", f"/tasks/{task['id']}")[1]
        check(story, made, last)
    told = {"changes": len(story.changes), "answers": len(story.answers)}
    lost = last["revision"] - made["revision"] - len(story.changes)
    return [Bar("acknowledged changes that are lost, or gaps", float(lost), "<=", 0)], told


def main() -> None:
    """Measure, and tell."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", default=["cost", "writers"])
    parser.add_argument("--checkpoint", default="compact")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--writers", type=int, default=20)
    options = parser.parse_args()
    before, bars, details = machine(), list[Bar](), dict[str, Any]()
    if "cost" in options.parts:
        with (
            local_service({"KSHOT_CHECKPOINT": options.checkpoint}) as service,
            httpx.Client(base_url=service.url, timeout=300) as client,
        ):
            found, told = cost(client, options.rounds)
            bars, details = [*bars, *found], details | told
    if "writers" in options.parts:
        found, told = writers(options.seconds, options.writers, options.checkpoint)
        bars, details = [*bars, *found], details | told
    tell("change", bars, before, **details)


if __name__ == "__main__":
    main()
