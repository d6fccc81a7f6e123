"""Work that goes on beside whoever asked for it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from model.errors import KshotError

log = logging.getLogger("kshot.background")

Result = TypeVar("Result")


def spawn(work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
    """Start work, and take its error when it ends, whether or not anybody still waits for it.

    Those who wait get the error too. Where all have left, as when a store stalls and requests pass
    their deadlines, asyncio would report each as never retrieved. An error that is none of ours is
    logged here, since it may end a loop that nobody waits for. The caller keeps the task.
    """
    task = asyncio.create_task(work)
    task.add_done_callback(_take)
    return task


async def until(reached: Callable[[], Awaitable[bool]], pause_s: float) -> None:
    """Ask again and again, and return when it is so; an error of ours is asked again later."""
    while True:
        try:
            if await reached():
                return
        except KshotError as error:
            log.debug("%s cannot be told now: %s", reached, error.code)
        await asyncio.sleep(pause_s)


def _take(task: asyncio.Task[Any]) -> None:
    if task.cancelled() or (error := task.exception()) is None:
        return
    if isinstance(error, KshotError):
        log.debug("%s ended with %s", task.get_coro(), error.code)
    else:
        log.error("%s failed", task.get_coro(), exc_info=error)
