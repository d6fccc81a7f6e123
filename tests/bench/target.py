"""A server process of one's own, with the door for benchmarks, and the load generator beside it."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx

from deploy.local_service import ROOT, START_S, free_port
from tests.bench.bodies import task_body, write_queries
from tests.bench.generator import Plan
from tests.bench.schedule import Sample
from tests.serving import make_key

PATIENCE_S = 120.0
QUERIES = 16  # different bodies


@dataclass(frozen=True, slots=True)
class Load:
    """What the generator saw, and what it took."""

    samples: list[Sample]
    probes_ms: list[float]
    wall_s: float
    cpu_s: float

    @property
    def cpu_share(self) -> float:
        """Part of the machine's processors that the generator used."""
        return self.cpu_s / self.wall_s / len(os.sched_getaffinity(0))

    @property
    def answers_s(self) -> float:
        """Answers a second, up to the last of them."""
        answered = sum(sample.status == 200 for sample in self.samples)
        return answered / max(sample.done for sample in self.samples)


@dataclass(frozen=True, slots=True)
class Target:
    """A running server with one task, and bodies to send to it."""

    port: int
    client: httpx.Client
    task: str
    bodies: tuple[str, ...]
    headers: Mapping[str, str] = field(default_factory=dict)

    def state(self) -> dict[str, Any]:
        """Ask what is held, queued and pending inside."""
        return dict(self.client.get("/bench/state").json())

    def engine(self, clips: int, in_flight: int) -> dict[str, Any]:
        """Drive the server's own engine, without HTTP."""
        asked = {"task": self.task, "bodies": self.bodies, "clips": clips, "in_flight": in_flight}
        return dict(self.client.post("/bench/engine", json=asked).json())

    def slow_down(self, *, pass_s: float = 0.0, clip_s: float = 0.0) -> None:
        """Let each pass of queries take longer, and each clip of it."""
        self.client.post("/bench/device", json={"pass_s": pass_s, "clip_s": clip_s})

    def load(self, *, timeout_s: float = 60.0, **plan: Any) -> Load:  # noqa: ANN401
        """Carry out a plan in a process of its own."""
        return generated(
            Plan(
                port=self.port,
                target=f"/v1/tasks/{self.task}/classify",
                bodies=self.bodies,
                headers={
                    "X-Request-Timeout-Ms": str(round(1e3 * min(timeout_s, 60.0))),
                    **self.headers,
                },
                **plan,
            )
        )

    def settled(self, within_s: float = 30.0) -> dict[str, Any]:
        """Wait until nothing is held, queued or pending; returns the last state."""
        until = time.monotonic() + within_s
        while True:
            state = self.state()
            busy = any(state["held"].values()) or state["queued_frames"] or state["pending"]
            if not busy or time.monotonic() > until:
                return state
            time.sleep(0.1)


def generated(plan: Plan) -> Load:
    """Carry out a plan in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.generator"],
        cwd=ROOT,
        input=json.dumps(asdict(plan)),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    told = json.loads(done.stdout)
    samples = [Sample(**sample) for sample in told.pop("samples")]
    return Load(samples, **told)


@contextmanager
def target(settings: Mapping[str, str] | None = None, *, key: bool = False) -> Iterator[Target]:
    """Start the server, register the task, write the bodies.

    Args:
        settings: KSHOT_ variables beside those of the shell.
        key: Whether to lock it with a key, and to ask with that.

    Raises:
        RuntimeError: The server does not start.
    """
    with tempfile.TemporaryDirectory(prefix="kshot-bench-") as name:
        folder, port = Path(name), free_port()
        store = f"sqlite:{name}/kshot.db"
        env = os.environ | {"KSHOT_PORT": str(port), "KSHOT_STORE": store}
        scopes = "read,classify,write,admin"
        headers = {"Authorization": f"Bearer {make_key(store, scopes)}"} if key else {}
        with (folder / "server.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.bench.server"],
                cwd=ROOT,
                env=env | dict(settings or {}),
                stdout=log,
                stderr=log,
            )
        url = f"http://127.0.0.1:{port}"
        try:
            with httpx.Client(base_url=url, timeout=PATIENCE_S, headers=headers) as client:
                _wait(process, client, folder / "server.log")
                yield replace(_prepared(port, client, folder), headers=headers)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _prepared(port: int, client: httpx.Client, folder: Path) -> Target:
    model = client.get("/v1/info").json()["model"]
    shape = (model["frames"], model["size"])
    made = client.post(
        "/v1/tasks",
        content=task_body(*shape),
        headers={"Content-Type": "application/json", "Prefer": "wait=60"},
    )
    until = time.monotonic() + START_S  # a large network takes longer than a request may wait
    while made.is_success and made.json()["status"] != "ready" and time.monotonic() < until:
        time.sleep(0.5)
        made = client.get(f"/v1/tasks/{made.json()['id']}")
    if not made.is_success or made.json()["status"] != "ready":
        raise RuntimeError(f"The task was not registered: {made.status_code} {made.text[:500]}")
    paths: Sequence[Path] = write_queries(folder, QUERIES, *shape)
    return Target(port, client, made.json()["id"], tuple(map(str, paths)))


def _wait(process: subprocess.Popen[bytes], client: httpx.Client, log: Path) -> None:
    until = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < until:
        try:
            if client.get("/readyz", timeout=5.0).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise RuntimeError(f"The server did not start: {log.read_text()[-2000:]}")
