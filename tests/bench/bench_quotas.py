"""What a quota costs a request: the charge against a read of a task's record, in either store.

    python -m tests.bench.bench_quotas
    python -m tests.bench.bench_quotas --tasks 10000 --rounds 9

Real stores: a SQLite file, and a Redis with `appendfsync always`, one connection each. The tenant
has `--tasks` tasks. The last line of stdout is JSON.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from service.stores.quotas.kept import Amounts, Quotas
from tests.bench.bars import Bar, interleaved, machine, median_ratio, tell
from tests.bench.bench_stores import opened
from tests.stored_tasks import a_task, pictures_of

BAR = 2.0
CALLS = 100  # of each kind in a round
ASKED, MOST = Amounts(frames=8, clip_ms=1200), Quotas(tasks=10**9, frames=10**9, clip_ms=10**12)


async def ms(call: Callable[[], Awaitable[object]]) -> float:
    """Return the milliseconds of a call, the median of many in a row."""
    spent = []
    for _ in range(CALLS):
        begun = time.perf_counter()
        await call()
        spent.append(1e3 * (time.perf_counter() - begun))
    return statistics.median(spent)


def _run(loop: asyncio.Runner, call: Callable[[], Awaitable[object]]) -> float:
    return loop.run(ms(call))


def measured(kind: str, tasks: int, rounds: int) -> dict[str, list[float]]:
    """Give the milliseconds of both, round by round."""
    with tempfile.TemporaryDirectory() as folder, opened(kind, Path(folder)) as (store, loop):
        records = [a_task(clips=1, task_id=f"acme_{number:032x}") for number in range(tasks)]
        for record in records:
            loop.run(store.create(record, pictures_of(record, 10)))
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "charge": partial(store.quotas.charge, "acme", ASKED, MOST),
            "read": partial(store.get, records[0].task_id),
        }
        return interleaved(rounds, {n: partial(_run, loop, c) for n, c in calls.items()})


def main() -> None:
    """Measure and tell."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.bench_quotas",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    before, bars, told = machine(), list[Bar](), {}
    for kind in ("sqlite", "redis"):
        found = measured(kind, options.tasks, options.rounds)
        told[kind] = {name: statistics.median(each) for name, each in found.items()}
        ratio = median_ratio(found["charge"], found["read"])
        bars.append(Bar(f"{kind}: a charge / a read of a record", ratio, "<=", BAR))
        bars.append(Bar(f"{kind}: a charge", told[kind]["charge"], "<=", 5.0, "ms"))
    tell("quotas", bars, before, median_ms=told)


if __name__ == "__main__":
    main()
