"""The first classify of a task of 64 clips after a restart, against the second.

    python -m tests.bench.bench_restart --rounds 5
    python -m tests.bench.bench_restart --checkpoint vit-b-frozen --rounds 1
    python -m tests.bench.bench_restart --kept-bytes 0

A server process is started, registers the task, and is stopped by SIGTERM. Each round starts it on
the same store, waits for `/readyz`, and asks at once. A refusal is noted, with its `Retry-After`,
and asked again then. Clips come as 8 JPEG pictures in JSON. The last line of stdout is JSON.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from deploy.local_service import local_service
from tests.bench.bars import Bar, machine, tell
from tests.bench.bodies import task_body, write_queries
from tests.bench.subjects import settings_of

CLIPS, SHOTS = 64, 13  # of 5 labels; the last one has a clip less
BAR = 2.0  # the first against the second
PATIENCE_S = 900.0
JSON = {"Content-Type": "application/json"}


def register(client: httpx.Client) -> str:
    """Register the task, and return its id once it is ready."""
    model = client.get("/v1/info").json()["model"]
    body = json.loads(task_body(model["frames"], model["size"], shots=SHOTS))
    body["labels"][-1]["clips"].pop()
    made = client.post("/v1/tasks", json=body, headers={"Prefer": "wait=60"})
    made.raise_for_status()
    assert len(made.json()["clips"]) == CLIPS
    until = time.monotonic() + PATIENCE_S
    while made.json()["status"] != "ready" and time.monotonic() < until:
        time.sleep(0.5)
        made = client.get(f"/v1/tasks/{made.json()['id']}")
    return str(made.json()["id"])


def ask(client: httpx.Client, task: str, body: bytes) -> tuple[float, httpx.Response]:
    """Send one classify request with the default deadline; return its seconds and answer."""
    begun = time.perf_counter()
    answer = client.post(f"/v1/tasks/{task}/classify", content=body, headers=JSON)
    return time.perf_counter() - begun, answer


def after_restart(client: httpx.Client, task: str, bodies: list[bytes]) -> dict[str, Any]:
    """Ask until there is an answer, as refusals say; then once more."""
    begun = time.perf_counter()
    first_s, first = ask(client, task, bodies[0])
    refused: list[dict[str, Any]] = []
    took_s, answer = first_s, first
    while not answer.is_success and time.perf_counter() - begun < PATIENCE_S:
        after_s = float(answer.headers["retry-after"])
        told = {"status": answer.status_code, "code": answer.json()["code"]}
        refused.append(told | {"after_s": round(took_s, 3), "retry_after_s": after_s})
        time.sleep(after_s)
        took_s, answer = ask(client, task, bodies[0])
    answered_s = time.perf_counter() - begun
    second_s, second = ask(client, task, bodies[1])
    second.raise_for_status()
    return {
        "first_s": first_s,
        "first_status": first.status_code,
        "refused": refused,
        "answered_s": answered_s,
        "second_s": second_s,
    }


def measure(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Register once, then restart again and again."""
    settings = settings_of(options.checkpoint, folder)
    settings |= {"KSHOT_STORE": f"sqlite:{folder}/kshot.db"}
    if options.kept_bytes is not None:
        settings |= {"KSHOT_KEPT_SUPPORT_BYTES": str(options.kept_bytes)}
    with (
        local_service(settings) as service,
        httpx.Client(base_url=service.url, timeout=PATIENCE_S) as client,
    ):
        model = client.get("/v1/info").json()["model"]
        paths = write_queries(folder, 2, model["frames"], model["size"])
        bodies = [path.read_bytes() for path in paths]
        task = register(client)
    found = []
    for _ in range(options.rounds):
        with (
            local_service(settings) as service,
            httpx.Client(base_url=service.url, timeout=PATIENCE_S) as client,
        ):
            found.append(after_restart(client, task, bodies) | {"start_s": service.start_s})
            print(json.dumps(found[-1]), flush=True)
    return found


def main() -> None:
    """Measure and tell."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.bench_restart",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--checkpoint", default="compact")
    parser.add_argument("--rounds", type=int, default=5, help="restarts (default 5)")
    parser.add_argument("--kept-bytes", type=int, help="KSHOT_KEPT_SUPPORT_BYTES; 0 keeps none")
    options = parser.parse_args()
    before = machine()
    with tempfile.TemporaryDirectory(prefix="kshot-bench-") as name:
        found = measure(options, Path(name))
    ratio = statistics.median(one["answered_s"] / one["second_s"] for one in found)
    bar = Bar(f"{CLIPS} clips, {options.checkpoint}: first answer / second", ratio, "<=", BAR)
    tell("restart", [bar], before, rounds=found)


if __name__ == "__main__":
    main()
