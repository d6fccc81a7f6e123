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

from model.errors import EpisodeError, KshotError, MethodError
from service.background import spawn, until
from service.engine.engine import Engine
from service.engine.runtimes.protocol import ServedModel
from service.errors import TaskIncompatibleError, TaskTooLargeError
from service.stores.errors import (
    StoreCorruptError,
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
Step = Literal["moved", "busy", "failing", "never"]
PAUSE_S = 0.2  # between two looks at tasks that are busy, or lines that are in use
LONGEST_PAUSE_S = 30.0  # between two tries of tasks while the device or the store fails
GIVE_UP_S = 3600.0  # of nothing but failures, after which the tasks stay where they are
TEND_S = 30.0  # between two looks at whether tasks that stayed behind are still there
WRONG = (TaskIncompatibleError, TaskTooLargeError, EpisodeError, MethodError)  # with the task

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
        self._leaving: dict[int, asyncio.Task[None]] = {}  # lines by their id

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
        before, swap = self.swap, Swap(name)
        self.swap = swap
        try:
            source = await asyncio.to_thread(self.allowed.find, name)
        except BaseException:
            self.swap = before
            raise
        if self._work is not None:
            self._work.cancel()  # it tends what the last swap left behind
        self._work = spawn(self._serve(swap, source))
        return swap

    def end_watches(self) -> None:
        """Let all readers of events go, soon: the service stops."""
        for line in self._lines:
            line.watch.close()

    async def close(self) -> None:
        """Stop all lines."""
        working = [*self._leaving.values(), *([self._work] if self._work else [])]
        for work in working:
            work.cancel()
        await asyncio.gather(*working, return_exceptions=True)
        for line in self._lines:
            await line.close()

    async def _serve(self, swap: Swap, source: str) -> None:
        """Load, warm, switch, encode, let go."""
        if await self._exchanged(swap, source):
            swap.end("done")
            log.info("Serving %s; %d tasks stay behind", swap.checkpoint, len(swap.left))
        self._let_unused_go()
        await self._tend()

    async def _exchanged(self, swap: Swap, source: str) -> bool:
        """Have another checkpoint answer for all tasks that it can encode."""
        served = self.current.engine.model

        def loaded(model: ServedModel) -> None:
            check_shape(model, served)
            swap.phase, swap.revision = "warming", model.fingerprint

        try:
            line = await self._opening(source, loaded)
            self._lines.append(line)
            await self._switch(line, swap)
        except Exception as error:
            known = isinstance(error, KshotError)
            told = None if known else error
            log.warning("%s is not served: %s", swap.checkpoint, error, exc_info=told)
            swap.end("failed", sentence_of(error))
            return False
        try:
            await self._encode(line, swap)
        except Exception as error:
            log.warning("Not all tasks are encoded by %s", swap.checkpoint, exc_info=error)
            swap.end(
                "failed",
                f"The new checkpoint answers, and the older one for the {len(self.elsewhere)} "
                f"tasks that were not encoded again: {type(error).__name__}; see the log.",
            )
            return False
        return True

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
        pause_s, well = PAUSE_S / 2, time.monotonic()
        waiting = [task_id for task_id in await self._in_order() if task_id in self.elsewhere]
        while waiting:
            steps: dict[str, Step] = {}
            for task_id in waiting:
                steps[task_id] = step = await self._moved(task_id, line)
                swap.encoded += step == "moved"
                swap.left |= {task_id} if step == "never" else set()
            waiting = [task_id for task_id in waiting if steps[task_id] in ("busy", "failing")]
            failing = "failing" in steps.values() and "moved" not in steps.values()
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S) if failing else PAUSE_S
            well = well if failing else time.monotonic()
            if time.monotonic() - well > GIVE_UP_S:
                swap.left |= {*waiting}
                return
            if waiting:
                await asyncio.sleep(pause_s)

    async def _in_order(self) -> Iterable[str]:
        try:
            recent = await self._store.recent(MOST_TASKS)
        except KshotError:
            recent = ()
        return dict.fromkeys([*recent, *(task_id for task_id in self.elsewhere if task_id)])

    async def _moved(self, task_id: str, line: LineT) -> Step:
        """Hand a task over to a line that has it ready."""
        await line.tasks.supports.encoding.idle.wait()  # what requests wait for goes first
        old = self.elsewhere[task_id]
        if old.tasks.supports.busy(task_id):
            return "busy"
        try:
            revision = await line.tasks.supports.encoded(task_id)
            if (await line.tasks.get(task_id)).revision != revision:
                return "busy"
        except (TaskNotFoundError, TaskExpiredError, StoreCorruptError):
            line.tasks.supports.forget(task_id)
            self._forget(task_id)
            return "moved"
        except KshotError as error:
            log.warning("Task %s is not encoded again: %s", task_id, str(error))
            wrong = isinstance(error, WRONG) or isinstance(error.__cause__, WRONG)
            return "never" if wrong else "failing"
        if old.tasks.supports.busy(task_id):
            return "busy"
        del self.elsewhere[task_id]
        # what a query still builds there goes on
        old.tasks.supports.cache.forget(task_id, below_revision=revision + 1)
        return "moved"

    def _forget(self, task_id: str) -> None:
        """Have nothing of a task that is there no more at an older line."""
        self.elsewhere.pop(task_id).tasks.supports.forget(task_id)

    async def _tend(self) -> None:
        """Let older lines go once the tasks that stayed with them are there no more."""
        while self.elsewhere:
            await asyncio.sleep(TEND_S)
            for task_id in filter(None, [*self.elsewhere]):
                try:
                    await self._store.get(task_id)
                except (TaskNotFoundError, TaskExpiredError):
                    self._forget(task_id)
                except KshotError as error:
                    log.debug("Whether task %s is there is not known: %s", task_id, error)
            self._let_unused_go()

    def _let_unused_go(self) -> None:
        """Close the lines that answer for no task any more, once their last requests are done."""
        for line in self._lines:
            used = line is self.current or any(line is one for one in self.elsewhere.values())
            if not used and id(line) not in self._leaving:
                self._leaving[id(line)] = spawn(self._go(line))

    async def _go(self, line: LineT) -> None:
        line.watch.close()
        await until(partial(_quiet, line), PAUSE_S)
        self._lines = [one for one in self._lines if one is not line]
        try:
            await line.close()
        finally:
            del self._leaving[id(line)]
            del line
            self.let_go()


async def _quiet(line: Line) -> bool:
    """Tell whether a line has nothing to do any more."""
    return not line.requests and line.tasks.supports.idle
