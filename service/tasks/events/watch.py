"""The use case of watching a task: each reader is told how it stands whenever that has changed.

Nothing is queued: a reader that is slow asks for nothing meanwhile, and is told the newest then.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from service.errors import ServerFullError
from service.stores.errors import StoreUnavailableError, TaskExpiredError, TaskNotFoundError
from service.stores.records import TaskRecord
from service.tasks.encoding import Preparation
from service.tasks.events.standing import Event, Standing, event_between, standing_of
from service.tasks.supports import Supports

LOOK_S = 0.25  # between two looks of a reader at what is known here
ASK_S = 1.0  # between two questions to the store about a task, however many watch it
SILENT_S = 15.0  # after which a reader hears that the connection still stands


@dataclass(slots=True)
class _Watched:
    """A task that somebody watches."""

    task_id: str
    readers: int = 0
    record: TaskRecord | None = None
    asked: float = -ASK_S  # when the store was asked last
    preparation: Preparation | None = None  # when it was asked
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)


class Watch:
    """Tells readers how tasks stand.

    What happens to a task here is seen at once, what another replica does within `ASK_S`; how far
    another replica is with a task it alone knows.

    Args:
        supports: Knows records, and which tasks are getting ready.
        most: Readers at once.
    """

    def __init__(self, supports: Supports, most: int) -> None:
        self.supports = supports
        self.most = most
        self._watched: dict[str, _Watched] = {}
        self._closed = False

    @property
    def readers(self) -> int:
        """How many read now."""
        return sum(watched.readers for watched in self._watched.values())

    def close(self) -> None:
        """Let all readers go, soon: the service stops."""
        self._closed = True

    async def follow(
        self, task_id: str, told: Standing | None = None
    ) -> AsyncGenerator[Event | None]:
        """Give an event for each change, the first one at once unless `told` says it all.

        Args:
            task_id: The task.
            told: What the reader was told before it lost its connection.

        Yields:
            What happened; None where nothing has for a while. It ends when the task is deleted or
            the service stops.

        Raises:
            TaskNotFoundError, TaskExpiredError: There is no such task.
            ServerFullError: Too many read already.
        """
        with self._reading(task_id) as watched:
            if (now := await self._standing(watched)) is None:
                raise TaskNotFoundError(
                    f"There is no task {task_id!r} any more; see GET /v1/tasks."
                )
            heard = -SILENT_S  # so that a reader hears something at once
            while not self._closed:
                event = event_between(told, now)
                if event is not None or time.monotonic() - heard >= SILENT_S:
                    yield event
                    heard, told = time.monotonic(), now
                if now is None:
                    return
                await asyncio.sleep(LOOK_S)
                now = await self._standing(watched)

    @contextmanager
    def _reading(self, task_id: str) -> Iterator[_Watched]:
        if self.readers >= self.most:
            raise ServerFullError(
                f"{self.most} readers watch tasks already; ask GET /tasks/ID now and then, or "
                "watch again later.",
                retry_after_s=SILENT_S,
            )
        watched = self._watched.setdefault(task_id, _Watched(task_id))
        watched.readers += 1
        try:
            yield watched
        finally:
            watched.readers -= 1
            if not watched.readers:
                del self._watched[task_id]

    async def _standing(self, watched: _Watched) -> Standing | None:
        """Tell how a task stands; None where it is gone. While the store is away, as it stood."""
        async with watched.asking:
            preparation = self.supports.preparations.get(watched.task_id)
            now = time.monotonic()
            if preparation is not watched.preparation or now - watched.asked >= ASK_S:
                try:
                    watched.record = await self.supports.record(watched.task_id)
                except (TaskNotFoundError, TaskExpiredError):
                    watched.record = None
                except StoreUnavailableError:
                    if watched.record is None:
                        raise
                watched.asked, watched.preparation = now, preparation
        return None if watched.record is None else standing_of(watched.record, preparation)
