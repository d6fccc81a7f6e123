"""A service of one's own: started as a process, waited for, and gone when the block ends."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parents[1]
START_S = 180.0  # the first start of a fresh install compiles every module of torch
STOP_S = 20.0
# A local service answers from its own text alone: what it says must not hang on a key in the shell.
LEFT_OUT = ("OPENAI_API_KEY", "KSHOT_LLM_BASE_URL", "KSHOT_LLM_MODEL")


class LocalServiceError(Exception):
    """The service did not start, or stopped on its own."""


@dataclass(frozen=True, slots=True)
class LocalService:
    """A running service."""

    url: str  # http://127.0.0.1:PORT
    pid: int
    start_s: float  # from the start of the process until /readyz said yes


def free_port() -> int:
    """Find a port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def local_service(settings: Mapping[str, str] | None = None) -> Iterator[LocalService]:
    """Run `python -m service` on a free port with a store that is deleted at the end.

    Args:
        settings: KSHOT_ variables beside those of the shell.

    Raises:
        LocalServiceError: The service is not ready in time; the message ends with its last words.
    """
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="kshot-") as folder:
        log = Path(folder) / "service.log"
        env = {name: value for name, value in os.environ.items() if name not in LEFT_OUT}
        env |= {"KSHOT_HOST": "127.0.0.1", "KSHOT_PORT": str(port), "KSHOT_STOP_GRACE_S": "2"}
        env |= {"KSHOT_STORE": f"sqlite:{folder}/kshot.db"} | dict(settings or {})
        with log.open("wb") as output:
            # A session of its own: Ctrl-C reaches the caller alone, who then stops the service.
            process = subprocess.Popen(
                [sys.executable, "-m", "service"],
                cwd=ROOT,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            yield _wait_until_ready(process, f"http://127.0.0.1:{port}", log)
        finally:
            _stop(process)


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> LocalService:
    """Ask /readyz until it says yes."""
    start = time.monotonic()
    while time.monotonic() - start < START_S:
        if process.poll() is not None:
            break
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/readyz", timeout=5.0).is_success:
                return LocalService(url, process.pid, time.monotonic() - start)
        time.sleep(0.1)
    raise LocalServiceError(
        f"The service was not ready after {time.monotonic() - start:.0f} s; "
        f"the last thing it said was: {_last_words(log)}"
    )


def _last_words(log: Path) -> str:
    """Take the last message out of a log of JSON lines."""
    lines = log.read_text(errors="replace").strip().splitlines()
    if not lines:
        return "nothing"
    try:
        return str(json.loads(lines[-1])["message"])
    except (ValueError, KeyError, TypeError):
        return lines[-1]


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask the service to end, then make sure that nothing of its session is left."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
