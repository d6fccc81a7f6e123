"""The service as a process forked from one that has imported it: real, and up in a moment."""

import multiprocessing
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import httpx

from service.__main__ import main
from tests.serving import free_port

START_S = 60.0
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["service.__main__", "service.app", "service.http.server"])


class ForkedService:
    """`python -m service` without the seconds that its imports take.

    Args:
        settings: Environment, without the prefix.
        log: File for its log.
    """

    def __init__(self, settings: Mapping[str, str], log: Path) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.log = log
        env = {f"KSHOT_{name.upper()}": value for name, value in settings.items()}
        self.process = CONTEXT.Process(
            target=_serve, args=({**env, "KSHOT_PORT": str(port)}, str(log)), daemon=False
        )
        self.process.start()
        deadline = time.monotonic() + START_S
        while not self._ready():
            assert self.process.is_alive(), log.read_text()[-3000:]
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.02)

    def kill(self) -> None:
        """End it as a crash would: SIGKILL."""
        self.process.kill()
        self.process.join()

    def _ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200
        except httpx.TransportError:
            return False


def _serve(env: dict[str, str], log: str) -> None:
    for name in [*os.environ]:
        if name.startswith("KSHOT_"):
            del os.environ[name]
    os.environ.update(env)
    sys.argv = ["service"]
    with Path(log).open("ab", buffering=0) as output:
        os.dup2(output.fileno(), 2)
    sys.exit(main())
