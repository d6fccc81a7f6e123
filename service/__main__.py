"""`python -m service`: one process that serves until SIGTERM."""

import argparse
import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Iterator

import uvicorn

from model.errors import KshotError
from service.app import create_app
from service.settings import Settings
from service.telemetry import start_logging

log = logging.getLogger("kshot.service")


class Server(uvicorn.Server):
    """Uvicorn that leaves signals to `serve`, so that a stop asked for is no failure."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; requests that run get their grace.

    Raises:
        KshotError: A part cannot start.
    """
    app = create_app(settings)
    server = Server(
        uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            lifespan="off",  # entered here, so that a refusal to start is one sentence
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_graceful_shutdown=settings.stop_grace_s,
        )
    )

    def stop() -> None:
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    async with app.router.lifespan_context(app):
        await server.serve()


def main() -> int:
    """Read the settings and serve."""
    parser = argparse.ArgumentParser(
        prog="python -m service",
        description="Serve few-shot action recognition over HTTP. "
        "Settings are environment variables KSHOT_<NAME>; the README has their table.",
    )
    parser.parse_args()
    start_logging()
    try:
        settings = Settings.from_env()
        log.info("Settings: %s", settings.shown())
        asyncio.run(serve(settings))
    except KshotError as error:
        log.error("%s", error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
