"""Latency of classify through HTTP on the demo's task. The last line of stdout is JSON.

    python -m tests.bench.bench_service --repeats 30

One client, one request at a time, on this machine: sending, decoding, encoding and scoring are all
in the numbers. `register` is what every query would cost if the supports were not kept: it sends,
decodes and encodes them again; `ratio` says how many times dearer that is than one classify.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from deploy.local_service import local_service
from kshot_client import Client
from training.synthetic.actions import demo_actions
from training.synthetic.rendering import write_clip

LABELS, SHOTS, BATCH = 5, 5, 16
WARM_UP = 3


def times_ms(call: Callable[[], object], repeats: int) -> list[float]:
    """Time `repeats` calls after three that are not counted."""
    times = []
    for step in range(WARM_UP + repeats):
        start = time.perf_counter()
        call()
        if step >= WARM_UP:
            times.append(1e3 * (time.perf_counter() - start))
    return times


def row(name: str, clips: int, times: list[float]) -> dict[str, Any]:
    """Summarise one kind of request."""
    deciles = statistics.quantiles(times, n=10, method="inclusive")
    return {
        "request": name,
        "clips": clips,
        "repeats": len(times),
        "p50_ms": round(statistics.median(times), 1),
        "p90_ms": round(deciles[8], 1),
        "ms_per_clip": round(statistics.median(times) / clips, 1),
    }


def measure(folder: Path, repeats: int) -> dict[str, Any]:
    """Make the clips, start the service, time the requests."""
    support: dict[str, list[Path]] = {}
    for place, action in enumerate(demo_actions(LABELS, 0)):
        support[action.label] = [folder / f"{place}-{index}.mp4" for index in range(SHOTS)]
        for index, path in enumerate(support[action.label]):
            write_clip(path, action, 1000 * place + index)
    queries = [folder / f"query-{index}.mp4" for index in range(BATCH)]
    for index, path in enumerate(queries):
        write_clip(path, demo_actions(LABELS, 0)[index % LABELS], 10_000 + index)
    with local_service() as service, Client(service.url) as client:
        task = client.register(support, name="bench").id
        one = times_ms(lambda: client.classify(task, queries[:1]), repeats)
        many = times_ms(lambda: client.classify(task, queries), max(5, repeats // 4))
        again = times_ms(lambda: client.register(support, name="again"), max(5, repeats // 4))
        return {
            "model": client.info().model.model_dump(),
            "start_s": round(service.start_s, 2),
            "rows": [
                row("classify", 1, one),
                row("classify", BATCH, many),
                row("register", LABELS * SHOTS, again),
            ],
            "ratio": round(statistics.median(again) / statistics.median(one), 1),
        }


def main() -> None:
    """Measure, print a table, and the same as JSON."""
    parser = argparse.ArgumentParser(description="Time classify through HTTP.")
    parser.add_argument("--repeats", type=int, default=30, help="counted requests (default 30)")
    options = parser.parse_args()
    if options.repeats < 2:
        parser.error(f"--repeats is {options.repeats}; give at least 2.")
    with tempfile.TemporaryDirectory(prefix="kshot-bench-") as folder:
        found = measure(Path(folder), options.repeats)
    print(f"{'request':<10} {'clips':>5} {'repeats':>8} {'p50 ms':>8} {'p90 ms':>8} {'ms/clip':>8}")
    for line in found["rows"]:
        print(
            f"{line['request']:<10} {line['clips']:>5} {line['repeats']:>8} {line['p50_ms']:>8} "
            f"{line['p90_ms']:>8} {line['ms_per_clip']:>8}"
        )
    print(f"encoding {LABELS * SHOTS} supports again costs {found['ratio']} times one classify")
    machine = {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
    print(json.dumps({"bench": "service", **found, "machine": machine}))


if __name__ == "__main__":
    sys.exit(main())
