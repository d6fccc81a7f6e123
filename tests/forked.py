"""Processes forked from one that has imported everything: real ones, up in a moment."""

import gc
import importlib
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import httpx

from deploy.local_service import free_port

START_S = LONGEST_S = 200.0  # of a busy machine; the first start waits for the imports
# A test process has one fork server and the last list that it is given wins: this is the only one.
PRELOADED = (
    "service.__main__",
    "service.app",
    # commands import these when they run; torch's optimisers the last of them
    "model.backbones.clip",
    "model.backbones.timm",
    "torch._dynamo",
    "training.evaluation.compare",
    "training.compact.pretraining",
    "deploy.demo_synthetic",
    "tests.stored_tasks",
    "tests.training.features.cache_building",
)
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["__main__", *PRELOADED])


class ForkedCommand:
    """`python -m MODULE` without the seconds that its imports take.

    Args:
        module: One of `PRELOADED` that has a `main`.
        arguments: Of its command line.
        env: Variables beside those of the tests; those of the service are left out.
        log: File for what it says; None drops that.
    """

    def __init__(
        self,
        module: str,
        arguments: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        log: Path | None = None,
    ) -> None:
        self.process = CONTEXT.Process(
            target=_run,
            args=(module, list(arguments), dict(env or {}), str(log or os.devnull)),
            daemon=False,
        )
        self.process.start()

    @property
    def pid(self) -> int:
        """Its number."""
        assert self.process.pid is not None
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.process.is_alive()

    def kill(self) -> None:
        """End it as a crash would: SIGKILL."""
        self.process.kill()
        self.process.join()

    def stop(self) -> int:
        """Ask it to end; returns its exit code."""
        self.process.terminate()
        return self.wait()

    def wait(self, longest_s: float = LONGEST_S) -> int:
        """Wait for its end; returns its exit code."""
        self.process.join(longest_s)
        code = self.process.exitcode
        assert code is not None, f"it still runs after {longest_s:g} s"
        return code


class ForkedService(ForkedCommand):
    """`python -m service`, ready to be asked.

    Args:
        settings: Environment, without the prefix.
        log: File for its log.
        module: Another that serves so.
        env: Further variables, for that one.
    """

    def __init__(
        self,
        settings: Mapping[str, str],
        log: Path,
        module: str = "service.__main__",
        env: Mapping[str, str] | None = None,
    ) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.log = log
        set_to = {f"KSHOT_{name.upper()}": value for name, value in settings.items()}
        set_to |= {"KSHOT_PORT": str(port), **(env or {})}
        super().__init__(module, env=set_to, log=log)
        try:
            self._wait_ready()
        except BaseException:
            self.kill()
            raise

    def log_lines(self) -> list[dict[str, Any]]:
        """Read its log."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + START_S
        while not self._ready():
            running = self.alive and time.monotonic() < deadline
            assert running, self.log.read_text()[-3000:] if self.log.exists() else "no log"
            time.sleep(0.02)

    def _ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200
        except httpx.TransportError:
            return False


def loaded(names: Sequence[str], answer: Connection) -> None:
    """Send which modules this process has; a target for the test of the preload."""
    answer.send([name for name in names if name in sys.modules])


def _run(module: str, arguments: Sequence[str], env: Mapping[str, str], log: str) -> None:
    for name in [*os.environ]:
        if name.startswith(("KSHOT_", "OPENAI_")):
            del os.environ[name]
    os.environ.update(env)
    gc.freeze()  # what was imported is no garbage: a service collects before it begins
    tempfile.tempdir = None  # TMPDIR is read anew
    sys.argv = [module, *arguments]
    with Path(log).open("ab", buffering=0) as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    sys.exit(importlib.import_module(module).main())
