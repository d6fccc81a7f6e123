"""Settles futures of event loops from another thread."""

import asyncio
import logging
from collections.abc import Iterable
from typing import Any

log = logging.getLogger("kshot.engine")

Settlement = tuple["asyncio.Future[Any]", object]


def settle(settlements: Iterable[Settlement]) -> None:
    """Settle futures, each with a result or an exception, unless someone else has.

    Those of one loop are settled in one call, so that a batch wakes the loop once.
    """
    by_loop: dict[asyncio.AbstractEventLoop, list[Settlement]] = {}
    for future, outcome in settlements:
        by_loop.setdefault(future.get_loop(), []).append((future, outcome))
    for loop, of_loop in by_loop.items():
        try:
            loop.call_soon_threadsafe(_settle_here, of_loop)
        except RuntimeError:  # the loop has closed: nobody waits any more
            log.debug("Results came after the event loop had closed")


def _settle_here(settlements: list[Settlement]) -> None:
    for future, outcome in settlements:
        if future.done():
            continue
        if isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
