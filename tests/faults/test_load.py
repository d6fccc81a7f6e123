"""F10, F11 and F13: too much, a noisy neighbour, and a mixture for long; for `make soak` alone."""

import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.bench.bars import Bar
from tests.bench.generator import Plan
from tests.bench.schedule import (
    REJECTED,
    Sample,
    goodput,
    is_good,
    percentile,
    poisson,
    recovery_s,
    summary,
)
from tests.bench.server import cpu_s
from tests.bench.target import Load, generated
from tests.faults.figures import LONG, tell
from tests.faults.load import asking
from tests.faults.stage import JSON, Asked, asked, service
from tests.forked import ForkedService
from tests.serving import query_files

pytestmark = pytest.mark.skipif(not LONG, reason="figures are for `make soak`")

CLIP_S = 0.02  # of the simulated device: 50 clips a second
SECONDS = 12.0  # of a phase
NOISE_S = 20.0  # likewise beside a neighbour: others ask four times a second
NEIGHBOUR = "127.0.0.2"  # another address is another tenant
SLO_S = 2.0
SOAK_S = 45.0


@contextmanager
def slow_service(tiny: dict[str, str], folder: Path, **more: str) -> Iterator[ForkedService]:
    """Serve on a device of fixed speed."""
    told = folder / "device.json"
    told.write_text(json.dumps({"clip_s": CLIP_S}))
    settings = {**tiny, "store": f"sqlite:{folder / 'kshot.db'}", **more}
    env = {"FAULTY_DEVICE": str(told)}
    process = ForkedService(settings, folder / "log", "tests.faults.failing", env)
    try:
        yield process
    finally:
        process.kill()


def load_of(warm: Asked, folder: Path, **plan: Any) -> Load:  # noqa: ANN401
    """Have a process of its own ask the queries of one task: clients here would share our lock."""
    paths = [folder / f"{number}.json" for number in range(len(warm.bodies))]
    for path, body in zip(paths, warm.bodies, strict=True):
        path.write_bytes(body)
    return generated(
        Plan(
            port=httpx.URL(warm.url).port or 0,
            target=f"/tasks/{warm.tasks[0]}/classify",
            bodies=[str(path) for path in paths],
            headers={"X-Request-Timeout-Ms": JSON["x-request-timeout-ms"]},
            **plan,
        )
    )


def labels_of(clients: Asked) -> list[str]:
    """Return what each query of the first task is."""
    told = [clients.expected[0, body] for body in range(len(clients.bodies))]
    return [max(scores, key=scores.__getitem__) for scores in told]


def counts(load: Load, labels: Sequence[str]) -> Counter[str]:
    """Count what came of the requests: `right`, `wrong`, or the status of a refusal."""
    return Counter(
        str(one.status) if one.status != 200 else "right" if is_right(one, labels) else "wrong"
        for one in load.samples
    )


def is_right(sample: Sample, labels: Sequence[str]) -> bool:
    return is_good(sample, float("inf"), labels)


def latencies_ms(samples: Iterable[Sample]) -> list[float]:
    """From the intended moment: what the sender lags counts, too."""
    return [1e3 * sample.latency_s for sample in samples]


def about(load: Load, labels: Sequence[str]) -> dict[str, Any]:
    """Tell what came of a load, and what its sender took of a core."""
    cpu = round(load.cpu_s / load.wall_s, 3)
    livez_ms = round(percentile(load.probes_ms, 99), 1) if load.probes_ms else None
    told = {"livez_p99_ms": livez_ms, "generator_cores": cpu}
    return {**counts(load, labels), **summary(load.samples), **told}


def test_f10_three_times_too_much_keeps_its_goodput_and_refuses_quickly(
    tiny: dict[str, str], tmp_path: Path
) -> None:
    frames = round(SLO_S / CLIP_S) * 8 // 2  # what the device does in half of the SLO
    with (
        slow_service(tiny, tmp_path, max_inflight_frames=str(frames), tenant_share="1") as process,
        asked(process.url, tasks=1, bodies=2) as clients,
    ):
        labels, ask = labels_of(clients), partial(load_of, clients, tmp_path)
        calm = ask(clients=16, requests=round(SECONDS / CLIP_S))
        used_s = cpu_s(process.pid)
        load = ask(sends=poisson(3 * calm.answers_s, SECONDS, seed=1), probe_s=0.1)
        used_s = cpu_s(process.pid) - used_s
        after = ask(sends=poisson(calm.answers_s / 2, SECONDS, seed=2))
    refused = [one for one in load.samples if one.status in REJECTED]
    taken = [one for one in load.samples if one.status == 200]
    kept = goodput(load.samples, SLO_S, labels, 0.0, SECONDS) / calm.answers_s
    assert not counts(load, labels)["wrong"]
    tell(
        "F10",
        [
            Bar("goodput at 3 x / peak", kept, ">=", 0.9),
            Bar("accepted, p99", percentile(latencies_ms(taken), 99), "<=", 1e3 * SLO_S, "ms"),
            Bar("refused, p50", percentile(latencies_ms(refused), 50), "<=", 20, "ms"),
            Bar("recovery", recovery_s(after.samples, SLO_S, labels, 0.0), "<=", 10, "s"),
        ],
        peak_s=round(calm.answers_s, 1),
        load=about(load, labels),
        refused_p99_ms=round(percentile(latencies_ms(refused), 99), 1),
        service_cores=round(used_s / load.wall_s, 3),
    )


def beside(ask: Callable[..., Load], neighbour: Mapping[str, Any]) -> tuple[Load, Load]:
    """Ask four times a second while a neighbour carries out a plan; returns what both saw."""
    sends = [number / 4 for number in range(round(4 * NOISE_S))]
    with ThreadPoolExecutor() as at_once:
        other = at_once.submit(ask, source=NEIGHBOUR, **neighbour) if neighbour else None
        mine = ask(sends=sends, probe_s=0.1)
    return mine, mine if other is None else other.result()


def test_f11_a_tenant_that_asks_a_hundred_times_as_much_slows_the_others_little(
    tiny: dict[str, str], tmp_path: Path
) -> None:
    noisy = {"sends": poisson(400.0, NOISE_S, seed=1)}
    busy = {"clients": 8, "requests": round(0.7 * NOISE_S / CLIP_S)}  # as much as is answered
    with (
        slow_service(tiny, tmp_path, max_inflight_frames="800") as process,
        asked(process.url, tasks=1, bodies=2) as clients,
    ):
        labels, ask = labels_of(clients), partial(load_of, clients, tmp_path)
        alone, _ = beside(ask, {})
        shared, _ = beside(ask, busy)
        used_s = cpu_s(process.pid)
        others, noise = beside(ask, noisy)
        used_s = cpu_s(process.pid) - used_s
    assert not counts(others, labels)["wrong"]
    right = [one for one in others.samples if is_right(one, labels)]
    p99, of_busy, of_alone = (
        percentile(latencies_ms(load.samples), 99) for load in (others, shared, alone)
    )
    tell(
        "F11",
        [
            Bar("others' p99 beside it / alone", p99 / of_alone, "<=", 1.2),
            Bar("others' answers", len(right) / len(others.samples), ">=", 0.99),
        ],
        beside_a_noisy_one_to_beside_a_busy_one=round(p99 / of_busy, 2),
        alone=about(alone, labels),
        beside_a_busy_one=about(shared, labels),
        beside_a_noisy_one=about(others, labels),
        noise=about(noise, labels),
        service_cores=round(used_s / noise.wall_s, 3),
    )


def held(pid: int) -> dict[str, float]:
    """Tell what a process holds: private memory, descriptors, threads."""
    private = sum(
        int(line.split()[1])
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        if line.startswith(("Private_", "Swap:"))
    )
    return {
        "memory_mib": round(private / 1024, 1),
        "files": len(os.listdir(f"/proc/{pid}/fd")),  # noqa: PTH208
        "threads": len(os.listdir(f"/proc/{pid}/task")),  # noqa: PTH208
    }


def test_f13_mixed_traffic_holds_no_more_memory_files_or_threads_with_time(
    tiny: dict[str, str], tmp_path: Path
) -> None:
    settings = {**tiny, "store": f"sqlite:{tmp_path / 'kshot.db'}"}
    with service(settings, tmp_path / "log") as process, asked(process.url) as clients:

        def mixed(number: int) -> str:
            rng = random.Random(time.monotonic_ns())
            kind = rng.random()
            if kind < 0.05:
                path = f"/tasks/{clients.tasks[0]}/classify"
                bad = query_files(rng.randbytes(2000))
                answer = clients.client(number).post(path, files=bad, headers=JSON)
                return f"bad {answer.status_code}"
            if kind < 0.2:
                made = clients.register(number)
                path = f"/tasks/{made.json()['id']}"
                return f"{made.status_code} {clients.client(number).delete(path).status_code}"
            return clients.classify(number)

        seen = []
        with asking(mixed, 4) as load:
            for _ in range(9):
                time.sleep(SOAK_S / 9)
                seen.append(held(process.pid))
    first, last = seen[2], seen[-1]
    assert load.counts()["wrong"] == 0
    assert not [what for what in load.counts() if what.startswith(("5", "bad 5"))]
    tell(
        "F13",
        [
            Bar("memory / after a third", last["memory_mib"] / first["memory_mib"], "<=", 1.05),
            Bar("files more than after a third", last["files"] - first["files"], "<=", 2),
            Bar("threads more than after a third", last["threads"] - first["threads"], "<=", 1),
        ],
        seen=seen,
        outcomes=load.counts(),
        seconds=SOAK_S,
    )
