"""The use case of serving another checkpoint in the place of the one that is served.

Whatever answers with one model, its line, has parts of its own above the one store: two lines are
to each other as two replicas are. A task stays with its line until the new one has it ready.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, Literal, Protocol, TypeVar

from model.errors import KshotError
from service.background import spawn, until
from service.engine.engine import Engine
from service.engine.runtimes.protocol import ServedModel
from service.errors import TaskIncompatibleError
from service.stores.errors import (
    StoreCorruptError,
    StoreUnavailableError,
    TaskExpiredError,
    TaskNotFoundError,
)
from service.stores.protocol import TaskStore
from service.tasks.events.watch import Watch
from service.tasks.register import Tasks
from service.tasks.swapping.allowed import Allowed, check_shape, sentence_of
from service.tasks.swapping.errors import SwapRunningError
from service.tasks.warming import MOST_TASKS

Phase = Literal["loading", "warming", "encoding", "done", "failed"]
PAUSE_S = 0.2  # between two looks at tasks that are busy, or lines that are in use
MOST_TRIES = 5  # to encode a task that fails on the device

log = logging.getLogger("kshot.swap")


class Line(Protocol):
    """What answers with one model."""

    engine: Engine
    tasks: Tasks
    watch: Watch
    requests: int  # that it is answering

    async def close(self) -> None:
        """Stop its parts."""
        ...


LineT = TypeVar("LineT", bound=Line)
Loaded = Callable[[ServedModel], None]


@dataclass(slots=True)
class Swap:
    """How far a checkpoint is on its way into the place of another."""

    checkpoint: str  # by name
    phase: Phase = "loading"
    failure: str | None = None
    revision: str | None = None  # fingerprint of its weights, once it is loaded
    tasks: int = 0  # that are to be encoded again
    encoded: int = 0
    left: set[str] = field(default_factory=set)  # tasks that it cannot encode: the old one stays
    begun_at: float = field(default_factory=time.time)
    ended_at: float | None = None

    @property
    def running(self) -> bool:
        """Whether it is still on its way."""
        return self.ended_at is None

    def end(self, phase: Phase, failure: str | None = None) -> None:
        """Note that it is there, or never will be."""
        self.phase, self.failure, self.ended_at = phase, failure, time.time()


class Models(Generic[LineT]):
    """The model that answers, and those that still answer for some tasks.

    Args:
        first: The line that stands.
        store: Has the tasks.
        allowed: Which checkpoints may be served.
        opening: Starts the line of a checkpoint, and tells of the model once it is loaded.
    """

    def __init__(
        self,
        first: LineT,
        store: TaskStore,
        allowed: Allowed,
        opening: Callable[[str, Loaded], Awaitable[LineT]],
    ) -> None:
        self.current = first
        self.elsewhere: dict[str | None, LineT] = {}  # tasks that an older line answers for
        self.swap: Swap | None = None
        self.allowed = allowed
        self.switched: Callable[[LineT], None] = lambda _: None  # told the new line
        self.let_go: Callable[[], None] = lambda: None  # called once an old line is closed
        self._store = store
        self._opening = opening
        self._lines: list[LineT] = [first]
        self._work: asyncio.Task[None] | None = None

    async def serve(self, name: str) -> Swap:
        """Begin to serve another checkpoint.

        Raises:
            SwapRunningError: Another one is on its way.
            CheckpointNotAllowedError: The operator has allowed none of this name.
            CheckpointUnusableError: It has a part that is torn or not there.
        """
        if self.swap is not None and self.swap.running:
            raise SwapRunningError(
                f"The checkpoint {self.swap.checkpoint!r} is on its way already "
                f"({self.swap.phase}); ask again when GET /v1/admin/model says that it is done.",
                retry_after_s=5.0,
            )
        swap = self.swap = Swap(name)
        try:
            source = await asyncio.to_thread(self.allowed.find, name)
        except BaseException:
            self.swap = None
            raise
        self._work = spawn(self._serve(swap, source))
        return swap

    def end_watches(self) -> None:
        """Let all readers of events go, soon: the service stops."""
        for line in self._lines:
            line.watch.close()

    async def close(self) -> None:
        """Stop all lines."""
        if self._work is not None:
            self._work.cancel()
            await asyncio.gather(self._work, return_exceptions=True)
        for line in self._lines:
            await line.close()

    async def _serve(self, swap: Swap, source: str) -> None:
        """Load, warm, switch, encode, let go."""
        served = self.current.engine.model

        def loaded(model: ServedModel) -> None:
            check_shape(model, served)
            swap.phase, swap.revision = "warming", model.fingerprint

        try:
            line = await self._opening(source, loaded)
            self._lines.append(line)
            await self._switch(line, swap)
            await self._encode(line, swap)
        except Exception as error:
            if not isinstance(error, KshotError):
                log.exception("The checkpoint %s is not served", swap.checkpoint)
            log.warning("The checkpoint %s is not served: %s", swap.checkpoint, error)
            swap.end("failed", sentence_of(error))
        await self._let_unused_go()
        if swap.running:
            swap.end("done")
            log.info("Serving %s; %d tasks stay behind", swap.checkpoint, len(swap.left))

    async def _switch(self, line: LineT, swap: Swap) -> None:
        """Have a new line answer; the tasks that there are stay where they are."""
        old, ids = self.current, await self._store.ids()
        for task_id in (*ids, *old.tasks.supports.preparations):
            self.elsewhere.setdefault(task_id, old)
        self.current = line
        self.switched(line)
        line.tasks.arrivals.start(after=old.tasks.arrivals)
        swap.phase, swap.tasks = "encoding", len(self.elsewhere)
        log.info("Switched to %s; %d tasks are encoded again", swap.checkpoint, swap.tasks)

    async def _encode(self, line: LineT, swap: Swap) -> None:
        """Get one task after the other ready at a line, those first that were used last."""
        tries: dict[str, int] = {}
        waiting = [task_id for task_id in await self._in_order() if task_id in self.elsewhere]
        while waiting:
            for task_id in waiting:
                if await self._moved(task_id, line, tries):
                    swap.encoded += 1
                elif tries.get(task_id, 0) >= MOST_TRIES:
                    swap.left.add(task_id)
            waiting = [each for each in waiting if each in self.elsewhere and each not in swap.left]
            if waiting:
                await asyncio.sleep(PAUSE_S)

    async def _in_order(self) -> Iterable[str]:
        try:
            recent = await self._store.recent(MOST_TASKS)
        except KshotError:
            recent = ()
        return dict.fromkeys([*recent, *(task_id for task_id in self.elsewhere if task_id)])

    async def _moved(self, task_id: str, line: LineT, tries: dict[str, int]) -> bool:
        """Hand a task over to a line that has it ready; False where that cannot be yet."""
        await line.tasks.supports.encoding.idle.wait()  # what requests wait for goes first
        old, revision = self.elsewhere[task_id], -1
        if old.tasks.supports.busy(task_id):
            return False
        try:
            revision = await line.tasks.supports.encoded(task_id)
            if (await line.tasks.get(task_id)).revision != revision:
                return False
        except (TaskNotFoundError, TaskExpiredError, StoreCorruptError):
            pass
        except StoreUnavailableError as error:
            log.warning("Task %s is not encoded again yet: %s", task_id, error)
            return False
        except KshotError as error:
            log.warning("Task %s is not encoded again: %s", task_id, error)
            final = isinstance(error, TaskIncompatibleError)
            tries[task_id] = MOST_TRIES if final else tries.get(task_id, 0) + 1
            return False
        if old.tasks.supports.busy(task_id):
            return False
        del self.elsewhere[task_id]
        # what a query still builds there goes on
        old.tasks.supports.cache.forget(task_id, below_revision=revision + 1)
        return True

    async def _let_unused_go(self) -> None:
        """Close the lines that answer for no task any more, once their last requests are done."""
        unused = [
            line
            for line in self._lines
            if line is not self.current and line not in self.elsewhere.values()
        ]
        for line in unused:
            line.watch.close()
            await until(partial(_quiet, line), PAUSE_S)
            self._lines.remove(line)
            await line.close()
        if unused:
            del line, unused
            self.let_go()


async def _quiet(line: Line) -> bool:
    """Tell whether a line has nothing to do any more."""
    return not line.requests and line.tasks.supports.idle
