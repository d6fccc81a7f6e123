"""What goes to the device next: batches of frames, by class of work, tenant and deadline.

A data structure that knows no tensors. The event loop puts work in, the device thread takes batches
out. Classification goes before long videos, these before registration, registration before
rebuilds; but work that waits behind a busier class gets a fifth of the frames, so that it is never
starved.
"""

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from service.engine.fair_queue import FairQueue
from service.engine.work import Kind, Work

KINDS: tuple[Kind, ...] = ("classify", "timeline", "register", "rebuild")  # what goes first
FRAMES_PER_FRAME = 4  # frames of other work for one of a class that waits behind it
QUERY_PART = FRAMES_PER_FRAME / (1 + FRAMES_PER_FRAME)  # of the device, while others wait behind

Reason = Literal["disconnect", "deadline", "shutdown", "failed"]
# What closed a batch of queries: one more would not fit, or would make one late; it was held back
# for more, as long as that was worth it; or the device was free.
Closing = Literal["full", "deadline", "delay", "idle"]


class Predicts(Protocol):
    """What knows how long work takes; `service.engine.cost.CostModel` does."""

    def predict(self, kind: Kind, frames: int) -> float:
        """Return seconds, 0 where nothing is known."""

    def worthwhile_frames(self, kind: Kind) -> int:
        """Return the frames below which a batch is mostly overhead, 0 where nothing is known."""


class Dropped(NamedTuple):
    """Work that will not be done, and why."""

    work: Work
    reason: Reason


@dataclass(frozen=True, slots=True)
class NextWork:
    """What the device is to do now."""

    batch: tuple[Work, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    wait_s: float = math.inf  # when it is worth to look again, though nothing new has come
    closed: bool = False


class Batcher:
    """Waiting work, of all classes and tenants.

    Args:
        budget_frames: Most frames of one batch of queries; a single work may be larger.
        clip_frames: Frames of a clip: what tenants take turns in.
        cost: How long work takes.
        max_wait_s: Longest a batch waits for more queries while the device is free.
        clock: Seconds.
    """

    def __init__(
        self,
        *,
        budget_frames: int,
        clip_frames: int,
        cost: Predicts,
        max_wait_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.budget_frames = budget_frames
        self.clip_frames = clip_frames
        self.cost = cost
        self.max_wait_s = max_wait_s
        self.clock = clock
        self.dropped: Counter[Reason] = Counter()
        self.closings: Counter[Closing] = Counter({"full": 0, "deadline": 0, "delay": 0, "idle": 0})
        self._held_back = False  # the queries that wait
        self._queues: dict[Kind, FairQueue] = {kind: FairQueue(clip_frames) for kind in KINDS}
        self._passed: dict[Kind, int] = dict.fromkeys(KINDS, 0)  # frames of others while it waited
        self._closed = False
        self._changed = threading.Condition()

    @property
    def queued_frames(self) -> int:
        """Frames that wait."""
        return sum(queue.frames for queue in self._queues.values())

    def waiting(self) -> dict[Kind, tuple[int, float]]:
        """Return of each class the frames that wait, and the seconds that the oldest has waited."""
        with self._changed:
            now = self.clock()
            return {
                kind: (queue.frames, max((now - work.since for work in queue), default=0.0))
                for kind, queue in self._queues.items()
            }

    def put(self, works: Iterable[Work]) -> bool:
        """Let work wait, all of it at once; False when the batcher is closed."""
        with self._changed:
            if not self._closed:
                for work in works:
                    self._queues[work.kind].push(work)
                self._changed.notify()
            return not self._closed

    def withdraw(self, works: Iterable[Work]) -> None:
        """Take back what nobody wants any more, as far as it still waits."""
        with self._changed:
            for work in works:
                if self._queues[work.kind].discard(work):
                    self.dropped["disconnect" if work.done.cancelled() else "failed"] += 1

    def abandon(self, failed: Work) -> None:
        """Take out what is left of work of which a part has failed."""
        with self._changed:
            queue = self._queues[failed.kind]
            for work in [work for work in queue if work.done is failed.done]:
                queue.discard(work)
                self.dropped["failed"] += 1

    def ahead(self, kind: Kind, tenant: str, frames: int) -> dict[Kind, int]:
        """Return the frames of each class that go before work of a tenant that came now.

        Of a class that goes after it those count that have their share meanwhile.
        """
        with self._changed:
            place = KINDS.index(kind)
            counted = {higher: self._queues[higher].frames for higher in KINDS[:place]}
            counted[kind] = self._queues[kind].ahead(tenant, frames)
            passed = (sum(counted.values()) + frames) // FRAMES_PER_FRAME
            for lower in KINDS[place + 1 :]:
                counted[lower] = min(passed, self._queues[lower].frames)
            return counted

    def take(self, timeout_s: float) -> NextWork:
        """Wait for a turn that has something in it."""
        until = self.clock() + timeout_s
        with self._changed:
            while True:
                next_work = self._next_work()
                left = min(until - self.clock(), next_work.wait_s)
                if (
                    next_work.batch
                    or next_work.dropped
                    or next_work.closed
                    or until <= self.clock()
                ):
                    return next_work
                self._changed.wait(max(0.0, left))

    def take_full(self) -> NextWork:
        """Return a batch of queries that cannot grow any more, without waiting, if there is one."""
        with self._changed:
            queue = self._queues["classify"]
            full = queue.frames >= self.budget_frames and self._next_kind() == "classify"
            return self._next_work() if full else NextWork()

    def poll(self) -> NextWork:
        """Return what is to be done now, without waiting."""
        with self._changed:
            return self._next_work()

    def close(self) -> list[Work]:
        """Take nothing more; return what will not be done."""
        with self._changed:
            self._closed = True
            left = [work for queue in self._queues.values() for work in queue]
            for work in left:
                self._queues[work.kind].discard(work)
            self.dropped["shutdown"] += len(left)
            self._changed.notify_all()
            return left

    def _next_work(self) -> NextWork:
        now = self.clock()
        dropped: list[Dropped] = []
        while (kind := self._next_kind()) is not None:
            self._drop_hopeless(kind, now, dropped)
            if kind == "classify" and (wait_s := self._wait_for_more(now)) > 0:
                self._held_back = True
                return NextWork(dropped=tuple(dropped), wait_s=wait_s)
            if batch := self._collect(kind, now, dropped):
                self._count(kind, sum(work.frames for work in batch))
                return NextWork(batch, tuple(dropped))
        return NextWork(dropped=tuple(dropped), closed=self._closed)

    def _next_kind(self) -> Kind | None:
        for kind in KINDS[1:]:
            head = self._queues[kind].peek()
            if head is not None and self._passed[kind] >= FRAMES_PER_FRAME * head.frames:
                return kind
        return next((kind for kind in KINDS if self._queues[kind]), None)

    def _wait_for_more(self, now: float) -> float:
        """Return how long fewer queries than are worth a batch should wait for others."""
        queue = self._queues["classify"]
        useful = min(self.cost.worthwhile_frames("classify"), self.budget_frames)
        others = any(self._queues[kind] for kind in KINDS[1:])
        if not queue or queue.frames >= useful or others:
            return 0.0
        oldest = min(work.since for work in queue)
        soonest = min((work.deadline for work in queue if work.deadline is not None), default=None)
        wait_s = oldest + self.max_wait_s - now
        if soonest is not None:
            wait_s = min(wait_s, soonest - self.cost.predict("classify", useful) - now)
        return wait_s

    def _collect(self, kind: Kind, now: float, dropped: list[Dropped]) -> tuple[Work, ...]:
        """Take work in its order while it fits the budget and breaks no deadline; else one."""
        queue = self._queues[kind]
        batch: list[Work] = []
        frames, soonest = 0, math.inf
        closing: Closing = "delay" if self._held_back else "idle"
        self._drop_hopeless(kind, now, dropped)
        while (head := queue.peek()) is not None and (kind == "classify" or not batch):
            frames += head.frames
            soonest = min(soonest, math.inf if head.deadline is None else head.deadline)
            late = now + self.cost.predict(kind, frames) > soonest
            if batch and (frames > self.budget_frames or late):
                closing = "deadline"
                break
            queue.pop()
            batch.append(head)
            self._drop_hopeless(kind, now, dropped)
        if batch and kind == "classify":
            self.closings["full" if frames >= self.budget_frames else closing] += 1
            self._held_back = False
        return tuple(batch)

    def _drop_hopeless(self, kind: Kind, now: float, dropped: list[Dropped]) -> None:
        """Take out what need not be done, up to the first that must."""
        queue = self._queues[kind]
        while (head := queue.peek()) is not None and (reason := self._hopeless(head, now)):
            queue.discard(head)
            self.dropped[reason] += 1
            dropped.append(Dropped(head, reason))

    def _hopeless(self, work: Work, now: float) -> Reason | None:
        if work.done.done():
            return "disconnect" if work.done.cancelled() else "failed"
        if work.deadline is None or work.deadline >= now + self.cost.predict(
            work.kind, work.frames
        ):
            return None
        return "deadline"

    def _count(self, kind: Kind, frames: int) -> None:
        for other in KINDS:
            waits = other != kind and bool(self._queues[other])
            self._passed[other] = self._passed[other] + frames if waits else 0
