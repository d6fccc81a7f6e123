"""The service over HTTP, a server process under load. The last line of stdout is JSON.

    python -m tests.bench.bench_http
    python -m tests.bench.bench_http --parts capacity overload --seconds 60

Clips come as 8 JPEG pictures of the model's size in JSON. The engine is that of the same process,
driven from inside without HTTP and decoding, in turns with the service. The load generator is a
process of its own on the same processors; `generator_cpu` is its part of them.

- `unloaded`: one request at a time: service p50 less engine p50, and what decoding takes of it.
- `capacity`: closed loop: clips a second of the service against those of its engine.
- `open`: Poisson arrivals at shares of the capacity; latency counts from the intended moment, and
  goodput counts answers within the limit that say what they say on an idle server.
- `overload`: arrivals at a multiple of the capacity between two calm stretches; its peak is that of
  closed loops just before and just after, together as long.
- `leaving`: clients that all ask at once, and of which 30 % hang up at random moments.
- `beside`: one query after the other, beside registrations of 65 clips and without, in turns.
- `slow`: a device that takes 5 s for a batch, and /livez meanwhile.
"""

import argparse
import contextlib
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.bench.bars import Bar, interleaved, machine, median_ratio, tell
from tests.bench.beside import beside
from tests.bench.schedule import (
    REJECTED,
    Sample,
    departures,
    goodput,
    is_good,
    percentile,
    poisson,
    recovery_s,
    summary,
)
from tests.bench.subjects import settings_of
from tests.bench.target import Load, Target, target

PARTS = ("unloaded", "capacity", "open", "overload", "leaving", "beside", "slow")
SHARES = (0.5, 0.7, 0.9)  # of the capacity, in the open loop
CALM = 0.5  # of the capacity, before and after the overload
CALM_S = 15.0
ALONE = 10  # requests of one unloaded round
ALONE_ROUNDS = 3  # unloaded rounds for one of the options': they are short
LIMIT = 50  # a p99 limit in unloaded medians, where none is given
LEAVING = 0.3
LONG_S = 60.0  # deadline where none should pass
SLOW_S = 5.0
PROBE_S = 0.1
Found = tuple[list[Bar], dict[str, Any]]


class Bench:
    """A server, and what is known of it so far.

    Args:
        options: The command line's.
        server: Running.
    """

    def __init__(self, options: argparse.Namespace, server: Target) -> None:
        self.options = options
        self.server = server
        first = server.load(timeout_s=LONG_S, clients=1, requests=len(server.bodies))
        answers = sorted(first.samples, key=lambda sample: sample.body)
        self.labels = [str(sample.label) for sample in answers]  # what an idle server says
        times = [sample.latency_s for sample in answers]
        self.limit_s = options.limit_ms / 1e3 or LIMIT * statistics.median(times)
        self.peak = 0.0  # clips a second

    def unloaded(self) -> Found:
        """One request at a time."""
        seen: list[Sample] = []

        def service() -> float:
            load = self.server.load(timeout_s=LONG_S, clients=1, requests=ALONE)
            seen.extend(load.samples)
            return statistics.median(sample.latency_s for sample in load.samples)

        def engine() -> float:
            return statistics.median(self.server.engine(ALONE, 1)["times_s"])

        rounds = ALONE_ROUNDS * self.options.rounds
        found = interleaved(rounds, {"engine": engine, "service": service})
        over = [1e3 * (s - e) for s, e in zip(found["service"], found["engine"], strict=True)]
        bar = Bar("unloaded: service p50 - engine p50", statistics.median(over), "<=", 15, "ms")
        parts = {
            "of_which_decoding_8_pictures": [sample.decode_ms for sample in seen],
            "of_which_queue": [sample.queue_ms for sample in seen],
            "of_which_device": [sample.compute_ms for sample in seen],
        }
        sides = {f"{name}_p50": [1e3 * s for s in times] for name, times in found.items()}
        return [bar], {
            f"{name}_ms": round(statistics.median(times), 1)
            for name, times in (sides | parts).items()
        }

    def closed(self, requests: int) -> Load:
        """Ask with many clients, each when its last answer has come."""
        return self.server.load(timeout_s=LONG_S, clients=self.options.clients, requests=requests)

    def capacity(self) -> Found:
        """Many requests at a time."""
        options = self.options
        loads: list[Load] = []

        def service() -> float:
            before = self.server.state()
            loads.append(self.closed(options.requests))
            passes.append(self.server.state()["passes"] - before["passes"])
            return loads[-1].answers_s

        def engine() -> float:
            told = self.server.engine(options.requests, options.clients)
            return options.requests / float(told["wall_s"])

        passes: list[int] = []
        found = interleaved(options.rounds, {"engine": engine, "service": service})
        self.peak = statistics.median(found["service"])
        ratio = median_ratio(found["service"], found["engine"])
        return [Bar("closed loop: service with `frames` / engine", ratio, ">=", 0.85)], {
            "engine_clips_s": round(statistics.median(found["engine"]), 2),
            "service_clips_s": round(self.peak, 2),
            "clips_a_batch": round(options.requests / statistics.median(passes), 1),
            "generator_cpu": cpu_of(*loads),
        }

    def open(self) -> Found:
        """Arrivals that wait for nobody."""
        rows, seconds = [], self.options.open_s
        for share in SHARES:
            sends = poisson(share * self.peak, seconds, seed=round(100 * share))
            load = self.server.load(timeout_s=self.limit_s, sends=sends)
            good = sum(is_good(one, self.limit_s, self.labels) for one in load.samples)
            row = {"share_of_capacity": share, "good_of_all": round(good / len(sends), 4)}
            rows.append(row | summary(load.samples) | {"generator_cpu": cpu_of(load)})
            print(" ".join(f"{name}={value}" for name, value in rows[-1].items()))
        return [], {"limit_ms": round(1e3 * self.limit_s), "rows": rows}

    def overload(self) -> Found:
        """Calm, too much, calm again."""
        as_long = round(self.peak * self.options.seconds / 2)  # as the overload, in two halves
        before = self.closed(as_long).answers_s
        options, begin, end = self.options, CALM_S, CALM_S + self.options.seconds
        stretches = (
            (CALM * self.peak, CALM_S, 0.0),
            (options.times * self.peak, options.seconds, begin),
            (CALM * self.peak, CALM_S, end),
        )
        sends = [at for n, (r, s, start) in enumerate(stretches) for at in poisson(r, s, n, start)]
        load = self.server.load(timeout_s=self.limit_s, sends=sends, probe_s=PROBE_S)
        state = self.server.settled()
        peak = statistics.mean((before, self.closed(as_long).answers_s))
        good = goodput(load.samples, self.limit_s, self.labels, begin, end)
        refused = [one for one in load.samples if one.status in REJECTED]
        took = [1e3 * (one.done - one.sent) for one in refused]
        back = recovery_s(load.samples, self.limit_s, self.labels, end)
        what = f"{options.times:g} x capacity for {options.seconds:g} s"
        leaked = sum(state["held"].values()) + state["tenants"]
        bars = [
            Bar(f"{what}: goodput / peak", good / peak, ">=", 0.9),
            Bar(f"{what}: rejects, p50", percentile(took, 50) if took else None, "<=", 50, "ms"),
            Bar(f"{what}: rejects, p99", percentile(took, 99) if took else None, "<=", 50, "ms"),
            Bar(f"{what}: recovery", back, "<=", 10, "s"),
            Bar(f"{what}: credits leaked", leaked, "<=", 0),
        ]
        during = [one for one in load.samples if begin <= one.intended < end]
        return bars, {
            "limit_ms": round(1e3 * self.limit_s),
            "goodput_s": round(good, 2),
            "peak_s": round(peak, 2),
            "statuses": statuses(during),
            "during": summary(during),
            "livez_p99_ms": round(percentile(load.probes_ms, 99), 1),
            "state": state,
            "generator_cpu": cpu_of(load),
        }

    def leaving(self) -> Found:
        """Some hang up while their work waits."""
        clients = self.options.leavers
        leaves = departures(clients, LEAVING, clients / self.peak / 2, seed=5)
        before = self.server.state()
        load = self.server.load(timeout_s=LONG_S, sends=[0.0] * clients, leaves=leaves)
        state = self.server.settled()
        answered = sum(sample.status == 200 for sample in load.samples)
        left = sum(sample.status == 0 for sample in load.samples)
        reached = state["clips"] - before["clips"] - answered
        what = f"{LEAVING:.0%} of {clients} clients leave"
        share = 1 - reached / left if left else None
        pending = state["pending"] + state["queued_frames"] + sum(state["held"].values())
        return [
            Bar(f"{what}: their work that never reached the device", share, ">=", 0.9),
            Bar(f"{what}: left pending, queued or held", pending, "<=", 0),
        ], {"left_unanswered": left, "reached": reached, "statuses": statuses(load.samples)}

    def beside(self) -> Found:
        """Queries while others register."""
        return beside(self.server, self.options.rounds, self.options.beside)

    def slow(self) -> Found:
        """/livez while the device is busy for long."""
        self.server.slow_down(pass_s=SLOW_S)
        asking = threading.Thread(
            target=self.server.load, kwargs={"timeout_s": LONG_S, "clients": 1, "requests": 1}
        )
        passes = self.server.state()["passes"]
        asking.start()
        while self.server.state()["passes"] == passes:
            time.sleep(0.02)
        begun, times = time.monotonic(), []
        while (asked := time.monotonic()) < begun + SLOW_S - 0.5:
            self.server.client.get("/livez").raise_for_status()
            times.append(1e3 * (time.monotonic() - asked))
            time.sleep(0.02)
        asking.join()
        self.server.slow_down(clip_s=self.options.clip_ms / 1e3)
        bar = Bar(
            f"/livez during a batch of {SLOW_S:g} s, p99", percentile(times, 99), "<=", 50, "ms"
        )
        return [bar], {"asked": len(times), "p50_ms": round(percentile(times, 50), 1)}


def cpu_of(*loads: Load) -> float:
    """Give the generator's share of the processors."""
    return round(statistics.median(load.cpu_share for load in loads), 3)


def statuses(samples: Sequence[Sample]) -> dict[int, int]:
    """Count answers by status; 0 had none."""
    found = sorted(sample.status for sample in samples)
    return {status: found.count(status) for status in sorted(set(found))}


def measure(options: argparse.Namespace) -> Found:
    """Start a server and measure the parts asked for; the capacity is needed by most."""
    parts = [part for part in PARTS if part in options.parts]
    if "capacity" not in parts and {"open", "overload", "leaving"} & set(parts):
        parts.insert(0, "capacity")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kshot-bench-")))
        server = stack.enter_context(target(settings_of(options.checkpoint, folder)))
        server.slow_down(clip_s=options.clip_ms / 1e3)
        bench = Bench(options, server)
        bars: list[Bar] = []
        details: dict[str, Any] = {"method": options.checkpoint}
        for part in parts:
            begun = time.monotonic()
            found, told = getattr(bench, part)()
            bars += found
            details[part] = told | {"took_s": round(time.monotonic() - begun, 1)}
    return bars, details


def main() -> None:
    """Measure and tell."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--checkpoint", default="compact", help="`vit-b`, `vit-b-frozen`: random weights"
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--rounds", type=int, default=5, help="of unloaded and capacity")
    parser.add_argument("--clients", type=int, default=32, help="of the closed loop")
    parser.add_argument("--requests", type=int, default=128, help="of one round of the closed loop")
    parser.add_argument("--limit-ms", type=float, default=0, help=f"0 is {LIMIT} unloaded medians")
    parser.add_argument("--open-s", type=float, default=30, help="of each rate of the open loop")
    parser.add_argument("--times", type=float, default=3, help="overload, in capacities")
    parser.add_argument("--seconds", type=float, default=60, help="of overload")
    parser.add_argument("--leavers", type=int, default=240, help="clients of `leaving`")
    parser.add_argument("--beside", type=int, default=40, help="queries of a round of `beside`")
    parser.add_argument(
        "--clip-ms", type=float, default=0, help="sleep for each clip, as a device of its own would"
    )
    options = parser.parse_args()
    before = machine()
    bars, details = measure(options)
    tell("http", bars, before, **details)


if __name__ == "__main__":
    main()
