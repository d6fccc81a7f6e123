"""The service on Ray Serve against the plain service, and an upgrade under load through Ray.

    python -m tests.bench.bench_ray
    python -m tests.bench.bench_ray --clip-ms 100 --rounds 5
    python -m tests.bench.bench_ray --parts upgrades --ways direct

Both run on tiny weights whose device waits for each clip, on one Redis. Clips come as 8 JPEG
pictures in JSON. First one client asks, for the median latency, then many, for the throughput; both
are measured in turns. Then another checkpoint takes over on Ray while clients ask, once by
`POST /v1/admin/model`, once by deploying with other settings: both through Ray's proxy, and both
without it. A connection that breaks is counted apart, and its request is not sent again. The last
line of stdout is JSON.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import httpx

from deploy.local_service import ROOT, free_port
from service.container import choose_runtime
from service.engine.passes.choice import Choice
from service.settings import Settings
from tests.bench.bars import Bar, interleaved, machine, median_ratio, tell
from tests.bench.generator import Plan
from tests.bench.schedule import percentile
from tests.devices import Device
from tests.faults.failing import Faulty
from tests.faults.load import asking, until
from tests.faults.stage import Asked, asked, query_body
from tests.forked import ForkedService
from tests.redis_server import redis_server
from tests.serving import tiny_checkpoint

QUERIES = 8
AGAIN = ("right", "broken", "503", "429", "409 not-ready")
UPGRADE_S = 300.0
PARTS = ("times", "upgrades")
WAYS = {"direct": "on Ray, without its proxy", "ray": "on Ray"}
MODELS = {"direct": ("second", "third"), "ray": ("fourth", "fifth")}  # that take over, in turn


def simulated(settings: Settings) -> Choice:
    """Choose what runs a checkpoint, behind a device that waits."""
    choice = choose_runtime(settings)
    runtime: Any = Device(choice.runtime, Faulty(Path(os.environ["FAULTY_DEVICE"])))
    return replace(choice, runtime=runtime)


def measured(url: str, task: str, bodies: Sequence[str], clients: int, requests: int) -> Any:  # noqa: ANN401
    """Have a generator ask; returns what it tells."""
    plan = Plan(
        port=int(url.rpartition(":")[2]),
        target=f"/v1/tasks/{task}/classify",
        bodies=bodies,
        headers={"X-Request-Timeout-Ms": "60000"},
        clients=clients,
        requests=requests,
    )
    command = [sys.executable, "-m", "tests.bench.generator"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        input=json.dumps(asdict(plan)),
        capture_output=True,
        text=True,
        check=True,
    )
    told = json.loads(done.stdout)
    assert {sample["status"] for sample in told["samples"]} == {200}
    return told


def p50_ms(told: Mapping[str, Any]) -> float:
    """Return the median latency."""
    return 1e3 * percentile([each["done"] - each["sent"] for each in told["samples"]], 50)


def more_ms(ray: Sequence[float], plain: Sequence[float]) -> float:
    """Return the median of how much more each round took."""
    return statistics.median(r - p for r, p in zip(ray, plain, strict=True))


def upgrade(known: Asked, folder: Path, redeploy: Any, models: Sequence[str]) -> dict[str, Any]:  # noqa: ANN401
    """Have another checkpoint take over twice, and tell what clients were answered meanwhile."""
    client, found = known.client(), {}

    def ask(number: int) -> str:
        path = f"/tasks/{known.tasks[number % len(known.tasks)]}/classify"
        headers = {"content-type": "application/json", "x-request-timeout-ms": "60000"}
        try:
            answer = known.client(number).post(path, content=known.bodies[0], headers=headers)
        except httpx.TransportError as error:
            return f"broken {type(error).__name__}"
        return "right" if answer.status_code == 200 else f"{answer.status_code} {answer.text[:200]}"

    def model() -> Any:  # noqa: ANN401
        with contextlib.suppress(httpx.TransportError):
            return client.get("/v1/admin/model").json()
        return model()

    for name, checkpoint in zip(("swap", "deploy"), models, strict=True):
        begun, before = time.monotonic(), model()["model_revision"]
        with asking(ask, 3) as load:
            load.wait(5)
            if name == "swap":
                body = {"checkpoint": checkpoint}
                client.post("/v1/admin/model", json=body).raise_for_status()
                until(lambda: model()["swap"]["state"] in ("done", "failed"), within_s=UPGRADE_S)
            else:
                redeploy(folder / "models" / checkpoint)
            until(lambda old=before: model()["model_revision"] != old, within_s=UPGRADE_S)
            load.wait(5)
        counts: Counter[str] = load.counts()
        lost = [t for t in known.tasks if client.get(f"/tasks/{t}").status_code != 200]
        found[name] = {
            "seconds": round(time.monotonic() - begun, 1),
            "answers": counts,
            "lost": len(lost),
            "broken": sum(n for what, n in counts.items() if what.startswith("broken")),
            "not_retryable": sum(n for what, n in counts.items() if not what.startswith(AGAIN)),
        }
    return found


def on_ray(stack: contextlib.ExitStack, env: Mapping[str, str]) -> tuple[str, Any]:
    """Start Ray and the application on it, which listens by itself on KSHOT_PORT too.

    Returns:
        The address of Ray's proxy, and what deploys the application anew.
    """
    import ray
    from ray import serve

    from deploy.ray.app import Sizes, application

    os.environ.update(RAY_enable_worker_prestart="0")  # a busy machine starts one by one
    ray.init(num_cpus=1, include_dashboard=False, logging_level="ERROR")
    stack.callback(ray.shutdown)
    port = free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    stack.callback(serve.shutdown)
    sizes = Sizes(ingress_cpus=0.1, engine_cpus=0.1, direct=True)

    def deploy(checkpoint: Path) -> None:
        changed = {**env, "KSHOT_CHECKPOINT": str(checkpoint)}
        serve.run(application(changed, sizes, simulated), name="kshot", route_prefix="/")

    deploy(Path(env["KSHOT_CHECKPOINT"]))
    return f"http://127.0.0.1:{port}", deploy


def times(
    places: Mapping[str, str], task: str, folder: Path, options: argparse.Namespace
) -> tuple[list[Bar], dict[str, Any]]:
    """Measure latency and throughput of all places, in turns."""
    bodies = [folder / f"{number}.json" for number in range(QUERIES)]
    for number, path in enumerate(bodies):
        path.write_bytes(query_body(number))
    names = list(map(str, bodies))
    one, many = (
        interleaved(
            options.rounds,
            {
                name: lambda at=at, n=n, r=r, of=of: of(measured(at, task, names, n, r))
                for name, at in places.items()
            },
        )
        for n, r, of in (
            (1, options.requests // 4, p50_ms),
            (options.clients, options.requests, lambda t: len(t["samples"]) / t["wall_s"]),
        )
    )
    bars = [
        Bar(f"p50 {WAYS[w]} - plain", more_ms(one[w], one["plain"]), "<=", 5, "ms")
        for w in options.ways
    ]
    for way in options.ways:
        ratio = median_ratio(many[way], many["plain"])
        bars.append(Bar(f"clips a second {WAYS[way]} / plain", ratio, ">=", 0.9))
    return bars, {"p50_ms": one, "clips_s": many}


def bars_of(upgrades: Mapping[str, Mapping[str, Any]]) -> Iterator[Bar]:
    """Hold upgrades to what they must show."""
    for way, both in upgrades.items():
        for name, each in both.items():
            yield Bar(f"{name} {WAYS[way]}: tasks lost", each["lost"], "<=", 0)
            yield Bar(f"{name} {WAYS[way]}: refused for good", each["not_retryable"], "<=", 0)


def main() -> None:
    """Measure, and tell."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clip-ms", type=float, default=50.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--requests", type=int, default=100, help="of each round")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    options = parser.parse_args()
    before = machine()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kshot-ray-")))
        server = stack.enter_context(redis_server(folder / "redis"))
        (folder / "device.json").write_text(json.dumps({"clip_s": options.clip_ms / 1e3}))
        os.environ["FAULTY_DEVICE"] = str(folder / "device.json")
        for seed, name in enumerate(sum(MODELS.values(), ()), 1):
            tiny_checkpoint(folder / "models" / name, seed=seed)
        settings = {"checkpoint": str(tiny_checkpoint(folder / "tiny")), "store": server.url}
        cores = str(len(os.sched_getaffinity(0)))  # as many lanes, so devices, on both
        settings |= {"threads": cores, "decode_workers": "2", "models_dir": str(folder / "models")}
        direct = {"port": str(free_port())}
        env = {f"KSHOT_{name.upper()}": value for name, value in (settings | direct).items()}
        plain = None
        if "times" in options.parts:
            failing = {"FAULTY_DEVICE": os.environ["FAULTY_DEVICE"]}
            plain = ForkedService(settings, folder / "log", "tests.faults.failing", failing)
            stack.callback(plain.kill)
        url, deploy = on_ray(stack, env)
        at = {"direct": f"http://127.0.0.1:{direct['port']}", "ray": url}
        bars, told, upgrades = [], {}, {}
        if plain is not None:
            known = stack.enter_context(asked(url, tasks=2, bodies=1))
            places = {"plain": plain.url, **{way: at[way] for way in options.ways}}
            bars, told = times(places, known.tasks[0], folder, options)
        for way in options.ways if "upgrades" in options.parts else ():
            known = stack.enter_context(asked(at[way], tasks=2, bodies=1))
            upgrades[way] = upgrade(known, folder, deploy, MODELS[way])
        bars += bars_of(upgrades)
    tell("ray", bars, before, clip_ms=options.clip_ms, **told, upgrades=upgrades)


if __name__ == "__main__":
    main()
