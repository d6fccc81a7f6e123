"""`python -m service`: one process that serves until SIGTERM."""

import argparse
import logging
import sys

import uvloop

from model.errors import KshotError
from service.app import create_app
from service.http.server import server_of
from service.http.telemetry import start_logging
from service.settings import Settings

log = logging.getLogger("kshot.service")


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; requests that run get their grace.

    Raises:
        KshotError: A part cannot start.
    """
    app = create_app(settings)
    server = server_of(app, settings)
    server.heed_signals()
    async with app.router.lifespan_context(app):
        await server.serve()


def main() -> int:
    """Read the settings and serve."""
    parser = argparse.ArgumentParser(
        prog="python -m service",
        description="Serve few-shot action recognition over HTTP. "
        "Settings are environment variables KSHOT_<NAME>; docs/settings.md has their table.",
    )
    parser.parse_args()
    start_logging()
    try:
        settings = Settings.from_env()
        log.info("Settings: %s", settings.shown())
        uvloop.run(serve(settings))
    except KshotError as error:
        log.error("%s", error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
