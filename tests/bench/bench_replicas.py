"""Two replicas on one Redis against one: clips a second, on devices of fixed speed.

    python -m tests.bench.bench_replicas
    python -m tests.bench.bench_replicas --clip-ms 100 --rounds 5

A replica is a service process on tiny weights whose device waits for each clip, as a device of its
own would, while the processor is free. Clips come as 8 JPEG pictures in JSON. Each replica has a
generator with as many clients. One and two are measured in turns. The last line of stdout is JSON.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from deploy.local_service import ROOT
from tests.bench.bars import Bar, interleaved, machine, median_ratio, tell
from tests.bench.generator import Plan
from tests.faults.stage import asked, query_body
from tests.forked import ForkedService
from tests.redis_server import redis_server
from tests.serving import tiny_checkpoint

BAR = 1.9
QUERIES = 8


def clips_s(
    urls: Sequence[str], task: str, bodies: Sequence[str], options: argparse.Namespace
) -> float:
    """Ask all replicas at once; return the answers a second of all together."""
    plans = [
        Plan(
            port=int(url.rpartition(":")[2]),
            target=f"/v1/tasks/{task}/classify",
            bodies=bodies,
            headers={"X-Request-Timeout-Ms": "60000"},
            clients=options.clients,
            requests=options.requests,
        )
        for url in urls
    ]
    with contextlib.ExitStack() as stack:
        running = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "tests.bench.generator"],
                    cwd=ROOT,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for _ in plans
        ]
        for process, plan in zip(running, plans, strict=True):
            assert process.stdin is not None
            process.stdin.write(json.dumps(asdict(plan)))
            process.stdin.close()
        told = [json.loads(process.stdout.read()) for process in running if process.stdout]
    assert {sample["status"] for one in told for sample in one["samples"]} == {200}
    return sum(len(one["samples"]) / one["wall_s"] for one in told)


def main() -> None:
    """Measure, and tell."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clip-ms", type=float, default=50.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", type=int, default=16, help="of each replica")
    parser.add_argument("--requests", type=int, default=100, help="of each replica and round")
    options = parser.parse_args()
    before = machine()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kshot-replicas-")))
        server = stack.enter_context(redis_server(folder / "redis"))
        (folder / "device.json").write_text(json.dumps({"clip_s": options.clip_ms / 1e3}))
        settings = {"checkpoint": str(tiny_checkpoint(folder / "tiny")), "store": server.url}
        settings |= {"threads": "1", "decode_workers": "2"}
        env = {"FAULTY_DEVICE": str(folder / "device.json")}
        urls = []
        for name in ("one", "two"):
            service = ForkedService(settings, folder / name, "tests.faults.failing", env)
            stack.callback(service.kill)
            urls.append(service.url)
        task = stack.enter_context(asked(urls[0], tasks=1, bodies=1)).tasks[0]
        bodies = [folder / f"{number}.json" for number in range(QUERIES)]
        for number, path in enumerate(bodies):
            path.write_bytes(query_body(number))
        names = list(map(str, bodies))
        found = interleaved(
            options.rounds,
            {
                "one": lambda: clips_s(urls[:1], task, names, options),
                "two": lambda: clips_s(urls, task, names, options),
            },
        )
    ratio = median_ratio(found["two"], found["one"])
    bar = Bar("clips a second: two replicas on one Redis / one", ratio, ">=", BAR)
    tell("replicas", [bar], before, clip_ms=options.clip_ms, clips_s=found)


if __name__ == "__main__":
    main()
