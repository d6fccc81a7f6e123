"""How the service listens: uvicorn on libuv's loop, with requests parsed in C."""

import asyncio
import contextlib
import signal
from collections.abc import Coroutine, Iterator

import uvicorn
import uvloop
from fastapi import FastAPI

from service.settings import Settings


class Server(uvicorn.Server):
    """Uvicorn for which a stop asked for is no failure."""

    def heed_signals(self) -> None:
        """Stop at SIGTERM or SIGINT, from now on; in the loop that will serve."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stop)

    def _stop(self) -> None:
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def server_of(app: FastAPI, settings: Settings) -> Server:
    """Make the server of an application whose lifespan is entered elsewhere.

    So a refusal to start is one sentence.
    """
    return Server(
        uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            http="httptools",
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_graceful_shutdown=settings.stop_grace_s,
        )
    )


def run(main: Coroutine[object, object, None]) -> None:
    """Run a coroutine to its end on libuv's loop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)
