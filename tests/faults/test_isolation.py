"""F15: whether another tenant's task exists cannot be told from how long its refusal takes."""

import asyncio
import random
import statistics
import time
from pathlib import Path

import httpx
import pytest

from service.keys.key import make_key
from service.keys.opening import open_keys
from tests.bench.bars import Bar
from tests.bench.schedule import percentile
from tests.faults.figures import LONG, tell
from tests.faults.stage import CLIPS, query_body, service
from tests.redis_server import redis_server
from tests.serving import problem, support_files

pytestmark = pytest.mark.skipif(not LONG, reason="figures are for `make soak`")
ASKED = 400  # times each


async def token(store: str, tenant: str) -> dict[str, str]:
    """Make a key, and give the header that shows it."""
    keys = open_keys(store)
    record, secret = make_key("test", tenant, ("read", "classify", "write"), 0.0)
    await keys.put(record)
    await keys.close()
    return {"authorization": f"Bearer {secret}", "content-type": "application/json"}


def test_f15_a_strangers_task_is_refused_like_one_that_never_was_and_as_soon(
    tiny: dict[str, str], tmp_path: Path
) -> None:
    with redis_server(tmp_path / "redis") as server:
        acme, other = (asyncio.run(token(server.url, name)) for name in ("acme", "other"))
        with service({**tiny, "store": server.url}, tmp_path / "log") as process:
            client = httpx.Client(base_url=process.url, timeout=60)
            made = client.post(
                "/tasks",
                files=support_files(CLIPS),
                headers={"authorization": acme["authorization"]},
            )
            task = made.json()["id"]
            never = task[:-4] + ("0000" if task[-4:] != "0000" else "1111")
            paths = [f"/tasks/{task}/classify", f"/tasks/{never}/classify"]
            body, times = query_body(1), dict[str, list[float]]()
            for _ in range(ASKED):
                for path in random.sample(paths, 2):
                    begun = time.perf_counter()
                    answer = client.post(path, content=body, headers=other)
                    times.setdefault(path, []).append(1e3 * (time.perf_counter() - begun))
                    problem(answer, 404, "task-not-found")
            client.close()
    there, absent = (times[path] for path in paths)
    noise = statistics.median(abs(one - statistics.median(absent)) for one in absent)
    apart = abs(statistics.median(there) - statistics.median(absent))
    tell(
        "F15",
        [Bar("difference of medians / spread of one", apart / noise, "<=", 1)],
        p50_ms=[round(statistics.median(one), 2) for one in (there, absent)],
        p99_ms=[round(percentile(one, 99), 2) for one in (there, absent)],
        asked=ASKED,
    )
