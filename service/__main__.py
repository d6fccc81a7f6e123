"""`python -m service`: one process that serves until SIGTERM."""

import argparse
import logging
import os
import sys
import threading
from typing import NoReturn

import uvloop

from model.errors import KshotError
from service.http.server import serve, start_logging
from service.settings import Settings

log = logging.getLogger("kshot.service")


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
        from service.app import create_app  # imports torch, which help and refusals do without

        uvloop.run(serve(create_app(settings), settings))
    except KshotError as error:
        log.error("%s", error)
        return 2
    return 0


def leave(code: int) -> NoReturn:
    """End the process; a pass that is still on the device ends with it, and loses nothing."""
    logging.shutdown()
    sys.stdout.flush()
    if any(thread.name == "device" for thread in threading.enumerate()):
        os._exit(code)  # threads of a pass would be waited for
    sys.exit(code)


if __name__ == "__main__":
    leave(main())
