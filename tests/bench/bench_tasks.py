"""Many tasks in either store: how long `GET /tasks` and a start take among them.

    python -m tests.bench.bench_tasks
    python -m tests.bench.bench_tasks --tasks 10000 --clips 25 --stores sqlite

Tasks are made straight through the store, with real records and pictures of a few bytes. The
service is a process on tiny weights, forked from one that has imported everything, so that a start
is that of the service and not of Python; an empty store is started beside it. The last line of
stdout is JSON.
"""

import argparse
import asyncio
import contextlib
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from service.stores.opening import open_store
from service.stores.records import TaskRecord
from tests.bench.bars import Bar, machine, tell
from tests.bench.schedule import percentile
from tests.forked import ForkedService
from tests.redis_server import redis_server
from tests.serving import tiny_checkpoint
from tests.stored_tasks import a_task

AT_ONCE = 32  # creates
FRAMES = 8
STARTS = 3
PAGE_MS, START_S = 50.0, 10.0


async def fill(url: str, tasks: int, clips: int) -> None:
    """Make tasks."""
    store = await open_store(url)
    numbers = iter(range(tasks))
    begun = time.time() - tasks

    async def create() -> None:
        for number in numbers:
            record = task_of(begun + number, clips)
            pictures = {clip.clip_id: (b"\xff\xd8" + bytes(14),) * FRAMES for clip in record.clips}
            await store.create(record, pictures)

    await asyncio.gather(*(create() for _ in range(AT_ONCE)))
    await store.close()


def task_of(created_at: float, clips: int) -> TaskRecord:
    """Return a task whose clips have as many frames as a model takes."""
    record = a_task(created_at=created_at, clips=clips)
    times = tuple(0.1 * frame for frame in range(FRAMES))
    return replace(
        record,
        clips=tuple(replace(clip, frames_s=times, distinct=FRAMES) for clip in record.clips),
    )


@contextlib.contextmanager
def stores(kind: str, folder: Path) -> Iterator[str]:
    """Give the URL of an empty store."""
    if kind == "sqlite":
        yield f"sqlite:{folder / 'kshot.db'}"
        return
    with redis_server(folder / "redis") as server:
        yield server.url


def start_s(settings: dict[str, str], folder: Path) -> float:
    """Start a service some times; return the median."""
    found = []
    for _ in range(STARTS):
        begun = time.monotonic()
        service = ForkedService(settings, folder / "log")
        found.append(time.monotonic() - begun)
        service.kill()
    return statistics.median(found)


def pages_ms(url: str, limit: int) -> list[float]:
    """Page through all tasks; return what each page took."""
    found, cursor = [], dict[str, str]()
    with httpx.Client(base_url=url, timeout=60) as client:
        while True:
            begun = time.perf_counter()
            page = client.get("/tasks", params={"limit": str(limit), **cursor})
            found.append(1e3 * (time.perf_counter() - begun))
            assert page.status_code == 200, page.text
            if not (following := page.json()["next_cursor"]):
                return found
            cursor = {"cursor": following}


def measure(kind: str, tasks: int, clips: int) -> tuple[list[Bar], dict[str, Any]]:
    """Fill a store and ask about it."""
    with tempfile.TemporaryDirectory(prefix="kshot-tasks-") as name:
        folder = Path(name)
        settings = {"checkpoint": str(tiny_checkpoint(folder / "tiny")), "threads": "1"}
        settings |= {"decode_workers": "2"}
        empty = start_s({**settings, "store": f"sqlite:{folder / 'empty.db'}"}, folder)
        with stores(kind, folder) as url:
            begun = time.monotonic()
            asyncio.run(fill(url, tasks, clips))
            filled = time.monotonic() - begun
            started = start_s({**settings, "store": url}, folder)
            service = ForkedService({**settings, "store": url}, folder / "log")
            try:
                pages = {limit: pages_ms(service.url, limit) for limit in (20, 100)}
            finally:
                service.kill()
    what = f"{kind}, {tasks} tasks of {clips} clips"
    bars = [
        Bar(f"{what}: GET /tasks, {limit} a page, p99", percentile(took, 99), "<=", PAGE_MS, "ms")
        for limit, took in pages.items()
    ]
    bars.append(Bar(f"{what}: start", started, "<=", START_S, "s"))
    return bars, {
        "start_of_an_empty_store_s": round(empty, 2),
        "made_in_s": round(filled, 1),
        "pages": {limit: len(took) for limit, took in pages.items()},
        "p50_ms": {limit: round(percentile(took, 50), 1) for limit, took in pages.items()},
    }


def main() -> None:
    """Measure, and tell."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stores", nargs="+", default=["sqlite", "redis"])
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--clips", type=int, default=25)
    options = parser.parse_args()
    before, bars, details = machine(), list[Bar](), dict[str, Any]()
    for kind in options.stores:
        found, details[kind] = measure(kind, options.tasks, options.clips)
        bars += found
    tell("tasks", bars, before, **details)


if __name__ == "__main__":
    main()
