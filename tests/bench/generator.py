"""The load, as a process of its own: a plan in JSON on stdin, samples in JSON on stdout.

    python -m tests.bench.generator < plan.json

It imports no tensors, and bodies are written once, so that it takes little of the processor that
the service needs; what it took is told. A plan is `Plan` in JSON.
"""

import asyncio
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import uvloop

from tests.bench.schedule import Sample
from tests.bench.wire import Answer, Wire, request_bytes

PROBE = request_bytes("GET", "/livez")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to send.

    Args:
        port: Of a server on this machine.
        target: Path of every request.
        bodies: Files with JSON bodies, sent in turn.
        headers: Beside what HTTP asks for.
        sends: Open loop: the moments of sending, in seconds.
        leaves: Open loop: when each of these clients hangs up, None for those who stay.
        clients: Closed loop: how many ask, each when its last answer has come.
        requests: Closed loop: how many requests they share.
        probe_s: Ask /livez at this distance meanwhile; 0 does not.
        source: Address of this machine that clients come from; empty leaves it to the system.
    """

    port: int
    target: str
    bodies: Sequence[str]
    headers: Mapping[str, str] = field(default_factory=dict)
    sends: Sequence[float] = ()
    leaves: Sequence[float | None] = ()
    clients: int = 1
    requests: int = 0
    probe_s: float = 0.0
    source: str = ""


class Generator:
    """Carries out one plan.

    Args:
        plan: What to send.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        headers = {"Content-Type": "application/json", **plan.headers}
        self.requests = [
            request_bytes("POST", plan.target, Path(body).read_bytes(), headers)
            for body in plan.bodies
        ]
        self.samples: list[Sample] = []
        self.probes: list[float] = []
        self._idle: list[Wire] = []
        self._begun = 0.0

    @property
    def now(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._begun

    async def run(self) -> dict[str, Any]:
        """Send all, wait for all."""
        used, self._begun = time.process_time(), time.monotonic()
        probing = asyncio.create_task(self._probe()) if self.plan.probe_s else None
        await (self._open() if self.plan.sends else self._closed())
        wall_s, cpu_s = self.now, time.process_time() - used
        if probing is not None:
            probing.cancel()
            await asyncio.gather(probing, return_exceptions=True)
        return {
            "samples": [asdict(sample) for sample in self.samples],
            "probes_ms": [round(1e3 * seconds, 2) for seconds in self.probes],
            "wall_s": round(wall_s, 3),
            "cpu_s": round(cpu_s, 3),
        }

    async def _open(self) -> None:
        leaves = self.plan.leaves or [None] * len(self.plan.sends)
        async with asyncio.TaskGroup() as group:
            for number, (send, leave) in enumerate(zip(self.plan.sends, leaves, strict=True)):
                await asyncio.sleep(max(0.0, send - self.now))
                group.create_task(self._once(number, send, leave))

    async def _once(self, number: int, intended: float, leave: float | None) -> None:
        wire = self._idle.pop() if self._idle else self._wire()
        await self._sample(wire, number, intended, leave)
        self._idle.append(wire)

    async def _closed(self) -> None:
        numbers = iter(range(self.plan.requests))

        async def client() -> None:
            wire = self._wire()
            for number in numbers:
                await self._sample(wire, number, self.now, None)

        async with asyncio.TaskGroup() as group:
            for _ in range(self.plan.clients):
                group.create_task(client())

    async def _sample(self, wire: Wire, number: int, intended: float, leave: float | None) -> None:
        body, sent = number % len(self.requests), self.now
        answer = Answer(0, b"")
        try:
            async with asyncio.timeout(None if leave is None else max(0.0, leave - self.now)):
                answer = await wire.ask(self.requests[body])
        except OSError:  # it broke, or this client leaves (a TimeoutError is one)
            wire.close()
        done = self.now
        told = told_by(answer)
        self.samples.append(
            Sample(intended=intended, sent=sent, done=done, status=answer.status, body=body, **told)
        )

    async def _probe(self) -> None:
        wire = self._wire()
        for number in count():
            intended = number * self.plan.probe_s
            await asyncio.sleep(max(0.0, intended - self.now))
            await wire.ask(PROBE)
            self.probes.append(self.now - intended)

    def _wire(self) -> Wire:
        return Wire("127.0.0.1", self.plan.port, self.plan.source)


def told_by(answer: Answer) -> dict[str, Any]:
    """Read the first label and the timing out of an answer to one clip."""
    if answer.status != 200:
        return {}
    document = json.loads(answer.body)
    times = {f"{name}_ms": value for name, value in document["timing_ms"].items()}
    return {"label": document["results"][0]["label"], **times}


def main() -> None:
    """Read the plan, send, tell."""
    plan = Plan(**json.load(sys.stdin))
    json.dump(uvloop.run(Generator(plan).run()), sys.stdout)


if __name__ == "__main__":
    main()
