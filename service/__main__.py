"""`python -m service`: one process that serves until SIGTERM."""

import argparse
import logging
import os
import sys
from typing import NoReturn

from model.errors import KshotError

log = logging.getLogger("kshot.service")


def main() -> int:
    """Read the settings and serve."""
    parser = argparse.ArgumentParser(
        prog="python -m service",
        description="Serve few-shot action recognition over HTTP. "
        "Settings are environment variables KSHOT_<NAME>; docs/settings.md has their table.",
    )
    parser.parse_args()
    try:
        _run()
    except KshotError as error:
        log.error("%s", error)
        return 2
    return 0


def _run() -> None:
    """Check what can be checked soon, then import what takes seconds, and serve."""
    from model.folder import check_source
    from service.logs import start_logging
    from service.preflight import bound_socket, check_store
    from service.settings import Settings

    start_logging()
    settings = Settings.from_env()
    start_logging(settings.log_format)
    log.info("Settings: %s", settings.shown())
    with bound_socket(settings) as listening:
        check_store(settings)
        check_source(settings.checkpoint, settings.backbone_weights)

        import uvloop

        from service.app import create_app
        from service.http.server import serve

        uvloop.run(serve(create_app(settings), settings, listening))


def leave(code: int) -> NoReturn:
    """End the process at once; all that must be closed is closed, and derived things may be lost.

    To take the libraries apart would take seconds, and threads of a pass would be waited for.
    """
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    leave(main())
