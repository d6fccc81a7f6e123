"""The real service, with a door for benchmarks: what only its inside can tell.

    KSHOT_PORT=8001 python -m tests.bench.server

Beside the service's own routes, GET /bench/state tells what is held, queued, pending and counted,
POST /bench/engine drives the service's own engine from inside, without HTTP and decoding, and POST
/bench/device makes passes of queries take longer.
"""

import asyncio
import contextlib
import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import uvloop
from fastapi import FastAPI, Request

from model.media.pictures import read_pictures
from model.media.sampling import Clip
from service.app import create_app
from service.container import Service
from service.http.server import server_of
from service.limits import media_limits
from service.logs import start_logging
from service.settings import Settings
from tests.bench.bodies import pictures_of
from tests.bench.closed_loop import drive
from tests.devices import Device

OF_A_REQUEST = ("run_asgi", "watch", "decode", "classify")  # coroutines that end with a request


class Meter:
    """Counts the clips that reach the device, and holds it up when told to.

    Args:
        service: The service; its engine's device is wrapped.
    """

    def __init__(self, service: Service) -> None:
        self.clips = 0
        self.passes = 0
        self.pass_s = 0.0
        self.clip_s = 0.0
        thread = service.engine._thread
        thread.runtime = Device(thread.runtime, self)

    def __call__(self, clips: int) -> None:
        """Note one pass."""
        self.clips += clips
        self.passes += 1
        time.sleep(self.pass_s + clips * self.clip_s)


class Door:
    """The routes of benchmarks.

    Args:
        app: The service, whose lifespan has begun.
    """

    def __init__(self, app: FastAPI) -> None:
        self.app = app
        self.service: Service = app.state.service
        self.meter = Meter(self.service)
        self._clips: dict[str, Clip] = {}

    async def state(self) -> dict[str, Any]:
        """Tell what is there now."""
        names = [repr(task.get_coro()) for task in asyncio.all_tasks()]
        ledger, service = self.app.state.ledger, self.service
        return {
            "held": asdict(ledger.held),
            "tenants": ledger.tenants,
            "queued_frames": service.engine.queued_frames,
            "pending": sum(any(word in name for word in OF_A_REQUEST) for name in names) - 1,
            "dropped": service.engine.dropped,
            "clips": self.meter.clips,
            "passes": self.meter.passes,
            "cpu_s": time.process_time(),
            "decoders_cpu_s": sum(cpu_s(decoder.pid) for decoder in service.pool._decoders),
        }

    async def engine(self, request: Request) -> dict[str, Any]:
        """Classify so many clips of a task, so many at a time; tell what each took."""
        asked = json.loads(await request.body())
        record = await self.service.tasks.supports.record(asked["task"])
        support = await self.service.tasks.supports.get(record, 60.0)
        frames = [self._clip(body).frames_THWC for body in asked["bodies"]]
        clips = [frames[number % len(frames)] for number in range(asked["clips"])]
        begun = time.perf_counter()
        times = await drive(self.service.engine, clips, [support], asked["in_flight"])
        return {"wall_s": time.perf_counter() - begun, "times_s": times}

    async def device(self, request: Request) -> dict[str, Any]:
        """Let each pass take longer, and each clip of it."""
        told = json.loads(await request.body())
        self.meter.pass_s, self.meter.clip_s = told["pass_s"], told["clip_s"]
        return {}

    def _clip(self, body: str) -> Clip:
        """Decode a body's clip, once: these pictures are our own."""
        if body not in self._clips:
            model, media = self.service.engine.model, media_limits(self.service.limits)
            self._clips[body] = read_pictures(
                pictures_of(Path(body)), frames=model.frames, size=model.size, limits=media
            )
        return self._clips[body]


def cpu_s(pid: int) -> float:
    """Read the processor time of another process; 0 where the kernel keeps it from us."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM."""
    app = create_app(settings)
    server = server_of(app, settings)
    server.heed_signals()
    async with app.router.lifespan_context(app):
        door = Door(app)
        app.add_api_route("/bench/state", door.state, methods=["GET"])
        app.add_api_route("/bench/engine", door.engine, methods=["POST"])
        app.add_api_route("/bench/device", door.device, methods=["POST"])
        await server.serve()


def main() -> None:
    """Read the settings and serve."""
    start_logging()
    uvloop.run(serve(Settings.from_env()))


if __name__ == "__main__":
    main()
