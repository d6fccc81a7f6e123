"""Seconds of a registration of 64 clips: to its refusal, to its 202, until it is ready, to a stop.

    python -m tests.bench.bench_registration
    python -m tests.bench.bench_registration --checkpoint vit-b-frozen --parts stop

The clips are 640 x 360, of 2 s. The last line of stdout is JSON.
"""

import argparse
import json
import os
import signal
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from deploy.local_service import LocalService, local_service
from tests.bench.bars import machine
from tests.bench.subjects import settings_of
from tests.serving import Files
from tests.videos import make_video

LABELS, SHOTS, FRAMES = 4, 16, 60
GRACE_S = 2
AT_ONCE = {"prefer": "wait=0"}
LONG_S = 121  # one second more than a clip may have
PARTS = ("refuse", "accept", "stop")


def drifting(seed: int, width: int, height: int, ticks: Sequence[int]) -> bytes:
    """Make a video of coarse noise that drifts; ticks are thirtieths of a second."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (height // 40, width // 40, 3), dtype=np.uint8)
    large = np.kron(coarse, np.ones((40, 40, 1), np.uint8))
    shown = (np.roll(large, 3 * k, axis=1) for k in range(len(ticks) - 1))
    return make_video(shown, rate=30, ticks=ticks, options={"preset": "veryfast"})


def body(*, with_4k: bool = False) -> Files:
    """Give 64 clips, the last of them a long 4K one if asked."""
    clips = [drifting(seed, 640, 360, range(FRAMES + 1)) for seed in range(LABELS)]
    files = [
        (f"support[label {place}]", (f"{shot}.mp4", clip, "video/mp4"))
        for place, clip in enumerate(clips)
        for shot in range(SHOTS)
    ]
    if with_4k:
        long = drifting(9, 3840, 2160, (0, 1, 30 * LONG_S))
        files[-1] = (files[-1][0], ("4k.mp4", long, "video/mp4"))
    return files


def seconds_to_refuse(client: httpx.Client) -> dict[str, float]:
    """Send a clip whose header gives it away, behind 63 good ones."""
    files = body(with_4k=True)
    begun = time.monotonic()
    answer = client.post("/tasks", files=files)
    took_s = time.monotonic() - begun
    assert answer.status_code == 422, answer.text
    assert [clip["name"] for clip in answer.json()["clips"]] == ["4k.mp4"]
    return {"refused_s": took_s}


def seconds_to_accept(client: httpx.Client) -> dict[str, float]:
    """Register without waiting, and look until the task is ready."""
    files = body()
    begun = time.monotonic()
    answer = client.post("/tasks", files=files, headers=AT_ONCE)
    accepted_s = time.monotonic() - begun
    assert answer.status_code == 202, answer.text
    while client.get(f"/tasks/{answer.json()['id']}").json()["status"] != "ready":
        time.sleep(0.1)
    ready_s = time.monotonic() - begun
    size = sum(len(content) for _, (_, content, _) in files)
    return {"accepted_s": accepted_s, "ready_s": ready_s, "mib": size / 2**20}


def seconds_to_stop(client: httpx.Client, service: LocalService) -> dict[str, float]:
    """Stop the service while a task is encoded and its client waits for that."""
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(client.post, "/tasks", files=body())
        while not client.get("/tasks").json()["tasks"]:  # all clips decoded
            assert not waiting.done(), waiting.result().text
            time.sleep(0.1)
        time.sleep(1)
        assert not waiting.done(), waiting.result().text
        begun = time.monotonic()
        os.kill(service.pid, signal.SIGTERM)
        os.waitid(os.P_PID, service.pid, os.WEXITED | os.WNOWAIT)
        took_s = time.monotonic() - begun
        answer = waiting.result()
    kind = answer.headers["content-type"]
    print(f"stopped after {took_s:.2f} s: {answer.status_code} {kind}: {answer.text[:200]}")
    return {"stopped_s": took_s, "asked_s": GRACE_S + 2}


def measure(settings: Mapping[str, str], parts: list[str]) -> dict[str, Any]:
    """Measure the parts, each with a service of its own."""
    found: dict[str, float] = {}
    for part in parts:
        with (
            local_service({**settings, "KSHOT_STOP_GRACE_S": str(GRACE_S)}) as service,
            httpx.Client(base_url=service.url, timeout=600) as client,
        ):
            match part:
                case "refuse":
                    found |= seconds_to_refuse(client)
                case "accept":
                    found |= seconds_to_accept(client)
                case _:
                    found |= seconds_to_stop(client, service)
        print(found, flush=True)
    return found


def main() -> None:
    """Measure, show, tell as JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.bench_registration",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--checkpoint", default="compact", help="or vit-b-frozen")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kshot-bench-") as folder:
        found = measure(settings_of(options.checkpoint, Path(folder)), options.parts)
    for name, value in found.items():
        print(f"{name:12} {value:8.2f}")
    print(json.dumps({"checkpoint": options.checkpoint, **found, "machine": machine()}))


if __name__ == "__main__":
    main()
