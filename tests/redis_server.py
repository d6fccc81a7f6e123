"""A real Redis for tests: its own folder, port and append-only file; else the test is skipped.

REDIS_SERVER names another binary than the one on the path.
"""

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import redis

from deploy.local_service import free_port

START_S = 20.0


class RedisServer:
    """One redis-server process that can be killed and started again on the same files."""

    def __init__(self, folder: Path, options: dict[str, str]) -> None:
        binary = os.environ.get("REDIS_SERVER") or shutil.which("redis-server")
        if binary is None:
            pytest.skip("redis-server is not installed: apt-get install redis-server")
        self.binary = binary
        self.folder = folder
        self.options = options
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start and wait until the data is loaded."""
        self.folder.mkdir(parents=True, exist_ok=True)
        options = {"port": str(self.port), "dir": str(self.folder), **self.options}
        command = [self.binary, *(part for k, v in options.items() for part in (f"--{k}", v))]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + START_S
        with self.client() as client:
            while True:
                with suppress(redis.RedisError):
                    client.ping()
                    return
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((self.folder / "log").read_text())
                time.sleep(0.01)

    def client(self) -> redis.Redis:
        """Return a plain client, to look behind the store's back."""
        return redis.Redis(port=self.port, protocol=2)

    def kill(self) -> None:
        """End the process as a crash does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@contextmanager
def redis_server(
    folder: Path, appendfsync: str = "always", appendonly: str = "yes", **options: str
) -> Iterator[RedisServer]:
    """Run a Redis server in `folder`; further options as redis-server takes them, _ for -."""
    settings = {"bind": "127.0.0.1", "save": "", "appendonly": appendonly}
    settings |= {"appendfsync": appendfsync, "auto-aof-rewrite-percentage": "0"}
    settings |= {name.replace("_", "-"): value for name, value in options.items()}
    server = RedisServer(folder, settings)
    server.start()
    try:
        yield server
    finally:
        server.kill()


def heard(url: str, ask: Callable[[], None]) -> list[str]:
    """Return the commands that clients sent to a Redis while something was done."""
    commands, begun = list[str](), threading.Event()
    own = redis.Redis.from_url(url, protocol=2)

    def listen() -> None:
        with own.monitor() as monitor:
            begun.set()
            for each in monitor.listen():
                if each["command"] == "ECHO the end":
                    return
                if each["client_type"] != "lua":
                    commands.append(each["command"])

    listening = threading.Thread(target=listen)
    listening.start()
    assert begun.wait(20)
    ask()
    own.echo("the end")
    listening.join(20)
    own.close()
    return commands
