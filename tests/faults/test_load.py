"""F10, F11 and F13: too much, a noisy neighbour, and a mixture for long; for `make soak` alone."""

import json
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.bench.bars import Bar
from tests.bench.schedule import percentile
from tests.faults.figures import LONG, p99_ms, tell
from tests.faults.load import Outcome, asking
from tests.faults.stage import JSON, Asked, asked, service
from tests.forked import ForkedService
from tests.serving import query_files

pytestmark = pytest.mark.skipif(not LONG, reason="figures are for `make soak`")

CLIP_S = 0.02  # of the simulated device: 50 clips a second
SECONDS = 12.0  # of a phase
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


def good(outcomes: list[Outcome], seconds: float) -> float:
    """Count right answers within the SLO a second."""
    return sum(one.what == "right" and one.took_s <= SLO_S for one in outcomes) / seconds


def test_f10_three_times_too_much_keeps_its_goodput_and_refuses_quickly(
    tiny: dict[str, str], tmp_path: Path
) -> None:
    frames = round(SLO_S / CLIP_S) * 8 // 2  # what the device does in half of the SLO
    with (
        slow_service(tiny, tmp_path, max_inflight_frames=str(frames), tenant_share="1") as process,
        asked(process.url, tasks=1, bodies=2) as clients,
    ):
        with asking(clients.classify, 16) as calm:
            time.sleep(SECONDS)
        peak = good(calm.outcomes, SECONDS)
        with asking(clients.classify, 96, 3 * peak) as load:
            begun = time.monotonic()
            time.sleep(SECONDS)
            ended = time.monotonic()
        with asking(clients.classify, 4, peak / 2) as after:
            time.sleep(SECONDS)
    found = load.between(begun, ended)
    refused = [one for one in found if one.what.startswith(("503", "429"))]
    taken = [one for one in found if one.what == "right"]
    late = [one for one in after.outcomes if one.what != "right" or one.took_s > SLO_S]
    back = max((one.intended - ended for one in late), default=0.0)
    assert load.counts()["wrong"] == 0
    tell(
        "F10",
        [
            Bar("goodput at 3 x / peak", good(taken, ended - begun) / peak, ">=", 0.9),
            Bar("accepted, p99", p99_ms(taken), "<=", 1e3 * SLO_S, "ms"),
            Bar("refused, p50", 1e3 * percentile([o.took_s for o in refused], 50), "<=", 20, "ms"),
            Bar("recovery", back, "<=", 10, "s"),
        ],
        peak_s=round(peak, 1),
        asked_s=round(len(found) / (ended - begun), 1),
        outcomes=load.counts(),
        refused_p99_ms=p99_ms(refused),
    )


def test_f11_a_tenant_that_asks_a_hundred_times_as_much_slows_the_others_little(
    tiny: dict[str, str], tmp_path: Path
) -> None:
    with (
        slow_service(tiny, tmp_path, max_inflight_frames="800") as process,
        asked(process.url, tasks=1, bodies=2) as quiet,
    ):
        noisy = Asked(process.url, quiet.tasks, quiet.bodies, quiet.expected)
        for number in range(64):  # another address is another tenant
            transport = httpx.HTTPTransport(local_address="127.0.0.2")
            noisy.clients[number] = httpx.Client(
                base_url=process.url, timeout=120, transport=transport
            )
        with asking(quiet.classify, 4, 4.0) as alone:
            time.sleep(SECONDS)
        with asking(noisy.classify, 64, 400.0) as noise, asking(quiet.classify, 4, 4.0) as beside:
            time.sleep(SECONDS)
        noisy.close()
    assert beside.counts()["wrong"] == 0
    right = [one for one in beside.outcomes if one.what == "right"]
    tell(
        "F11",
        [
            Bar("others' p99 beside it / alone", p99_ms(right) / p99_ms(alone.outcomes), "<=", 1.2),
            Bar("others' answers", len(right) / len(beside.outcomes), ">=", 0.99),
        ],
        p99_ms_alone=p99_ms(alone.outcomes),
        p99_ms_beside=p99_ms(right),
        noise=noise.counts(),
        others=beside.counts(),
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
