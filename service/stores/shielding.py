"""Store operations run to their end, even when whoever asked for them has left.

A cancelled Redis command would leave its reply on the connection for the next caller
(redis-py issues 2624 and 2665), and a cancelled file operation goes on in its thread anyway.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class Shield:
    """Runs coroutines as tasks of its own, so that cancelling a caller cancels only the waiting."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    async def run(self, operation: Coroutine[Any, Any, Result]) -> Result:
        """Return the operation's result; when cancelled, leave it to finish by itself."""
        task = asyncio.create_task(operation)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    async def drain(self) -> None:
        """Wait until every operation has ended."""
        while self._running:
            await asyncio.wait(self._running)
