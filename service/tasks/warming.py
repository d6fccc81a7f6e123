"""Which tasks were used last, and getting their supports ready when the service starts.

A use is a registration or a classify request. Uses are gathered here and noted in the store twice
a minute and at the end, in one write for all tasks, so no request waits for it; what a crash loses
changes the order of warming and nothing else.
"""

import asyncio
import logging
import time

from model.errors import KshotError
from service.background import spawn
from service.stores.protocol import TaskStore
from service.tasks.supports import Supports

NOTE_S = 30.0
CLOSING_S = 0.5  # for the last note
MOST_TASKS = 1000  # that are warmed

log = logging.getLogger("kshot.tasks")


class Warming:
    """Gets the tasks that were used last ready, and notes which these are.

    Args:
        store: Knows the last uses.
        supports: Where tasks get ready; it gathers the uses.
    """

    def __init__(self, store: TaskStore, supports: Supports) -> None:
        self.store = store
        self.supports = supports
        self._running: list[asyncio.Task[None]] = []

    def start(self, *, ahead: bool = True) -> None:
        """Begin in the background; requests and registrations go first.

        Args:
            ahead: Whether tasks get ready; else their uses are noted alone.
        """
        self._running = [spawn(self._warm())] if ahead else []
        self._running.append(spawn(self._note_again_and_again()))

    async def close(self) -> None:
        """Stop, and note the uses of the last seconds."""
        for work in self._running:
            work.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        try:
            async with asyncio.timeout(CLOSING_S):
                await self._note()
        except TimeoutError:
            log.warning("The last uses of tasks were not noted: the store is slow")

    async def _warm(self) -> None:
        """Get one task after the other ready, as long as the memory for supports has room."""
        begun, ready = time.monotonic(), 0
        try:
            recent = await self.store.recent(MOST_TASKS)
        except KshotError as error:
            log.warning("No task was made ready ahead: %s", error)
            return
        for task_id in recent:
            await self.supports.encoding.idle.wait()  # what requests wait for goes first
            try:
                if not await self.supports.warm(task_id):
                    break
                ready += 1
            except KshotError as error:  # gone meanwhile, or of another checkpoint
                log.info("Task %s was not made ready ahead: %s", task_id, error)
        if recent:
            took_s = time.monotonic() - begun
            log.info("Made %d of %d recent tasks ready in %.1f s", ready, len(recent), took_s)

    async def _note_again_and_again(self) -> None:
        while True:
            await asyncio.sleep(NOTE_S)
            await self._note()

    async def _note(self) -> None:
        used, self.supports.used = self.supports.used, {}
        if not used:
            return
        try:
            await self.store.note_uses(used)
        except KshotError as error:
            log.warning("The last uses of %d tasks were not noted: %s", len(used), error)
