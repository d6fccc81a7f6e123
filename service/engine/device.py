"""The one thread that owns the device: it takes what the batcher gives, and outlives all faults.

Dimensions: Q query clips, T frames, H W pixels, C colours, L tokens, D width, E feature width.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.episode import EncodedSupport, MatchScores
from model.lanes import Lanes
from service.decoding.sandbox import NICENESS
from service.engine.cost import CostModel
from service.engine.fair_queue import Work
from service.engine.faults import is_device_lost, is_out_of_memory
from service.engine.futures import settle
from service.engine.passes.landing import landing
from service.engine.passes.staging import Staging
from service.engine.queue import Batcher, Dropped
from service.engine.runtimes.protocol import Runtime
from service.engine.shares import shares
from service.errors import DeadlineError, DeviceMemoryError, EngineError

IDLE_S = 1.0  # between two signs of life
FAILURES_TO_END = 2  # batches in a row without memory, after which the process should be replaced
STOPPED = "The engine has stopped; start the service again."

log = logging.getLogger("kshot.engine")


@dataclass(frozen=True, slots=True)
class Classified:
    """One query's scores, and where its time on the device went."""

    scores: MatchScores
    queue_ms: float
    compute_ms: float


@dataclass(slots=True, eq=False, kw_only=True)
class Query(Work):
    """One clip to classify."""

    frames_THWC: np.ndarray
    support: EncodedSupport


@dataclass(slots=True, eq=False, kw_only=True)
class Step(Work):
    """One slice of a longer work.

    Args:
        run: Does it, in so many parts as it is told; returns whether `done` is to be settled, and
            with what.
        timed: Whether its time says what frames cost.
    """

    run: Callable[[int], "Outcome | None"]
    timed: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the last step of a work gives."""

    result: object


@dataclass(frozen=True, slots=True)
class Flight:
    """A batch on the device.

    Args:
        queries: The batch.
        begun: When it was given to the device.
        scores: Waits until the device is done with it.
    """

    queries: list[Query]
    begun: float
    scores: Callable[[], list[MatchScores]]


class DeviceThread:
    """Runs batches of queries and steps, whichever the batcher says.

    A device that works by itself gets a full batch while it still has one, so that it never waits
    for what comes between two; a batch that could still grow waits until the device is free.

    Args:
        runtime: The weights; nobody else calls them while the thread runs.
        batcher: What waits.
        cost: Learns what batches take.
        free_memory: Called when the device has no memory left, from this thread.
        ahead: Whether the device works by itself, beside this thread.
        lanes: Cores that each take their share of a batch which has a clip for each; 1 runs
            whatever comes on all of them together.
    """

    def __init__(
        self,
        runtime: Runtime,
        batcher: Batcher,
        cost: CostModel,
        free_memory: Callable[[], None],
        *,
        ahead: bool,
        lanes: int = 1,
    ) -> None:
        self.runtime = runtime
        self.batcher = batcher
        self.cost = cost
        self.free_memory = free_memory
        self.beat = time.monotonic()
        self.lost = False  # further calls would fail as well
        self.memory_failures = 0
        self._failures_in_a_row = 0
        self._no_memory_now = False  # in the batch at hand
        self._ahead = ahead
        self._lanes = Lanes(lanes, NICENESS) if lanes > 1 else None
        self._free_since = 0.0  # when the device last gave back a batch
        self._staging = Staging(pinned=runtime.device.type == "cuda", buffers=1 + ahead)
        self._thread = threading.Thread(target=self._run, name="device", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Finish the work at hand, fail what waits, and join."""
        waiting = self.batcher.close()
        settle((work.done, EngineError(STOPPED)) for work in waiting)
        self._thread.join()
        if self._lanes is not None:
            self._lanes.close()

    @property
    def silent_s(self) -> float:
        """Seconds since the last sign of life; endless once the thread or the device is gone."""
        if self.lost or not self._thread.is_alive():
            return float("inf")
        return time.monotonic() - self.beat

    def put(self, works: Sequence[Work]) -> None:
        """Queue work, all of it at once.

        Raises:
            EngineError: The thread is stopping or gone.
        """
        if not self._thread.is_alive() or not self.batcher.put(works):
            raise EngineError(STOPPED)

    def _run(self) -> None:
        flight: Flight | None = None
        with torch.inference_mode():
            while True:
                self.beat = time.monotonic()
                turn = self.batcher.take(IDLE_S) if flight is None else self.batcher.take_full()
                settle((one.work.done, _late(one)) for one in turn.dropped)
                sent = self._send(turn.batch) if self._ahead else None
                flight = self._landed(flight, sent)
                if turn.batch and sent is None:
                    self._do(turn.batch)
                elif turn.closed and flight is None:
                    return

    def _send(self, batch: tuple[Work, ...]) -> Flight | None:
        """Give queries to the device without waiting for it; None where that cannot be."""
        queries = [work for work in batch if isinstance(work, Query)]
        if not queries:
            return None
        begun = time.monotonic()
        try:
            return Flight(queries, begun, self._start(queries))
        except Exception as error:  # it is done again by itself, in halves if it must
            # Not the error itself: a handler that keeps records would keep the pass's tensors.
            log.warning("A batch could not be sent ahead: %s", str(error))
            return None

    def _landed(self, flight: Flight | None, following: Flight | None) -> Flight | None:
        """Answer the earlier of two batches; return the one that is under way then.

        Where one failed both are waited for, as their clips lie in memory that is used in turn,
        and what failed is done again by itself.
        """
        if flight is None or self._land(flight):
            return following
        failed = [flight]
        if following is not None and not self._land(following):
            failed.append(following)
        for one in failed:
            self._do(tuple(one.queries))
        return None

    def _land(self, flight: Flight) -> bool:
        """Wait for a batch and answer it; False when it failed."""
        try:
            scores = flight.scores()
        except Exception as error:  # as in `_send`
            log.warning("A batch sent ahead failed: %s", str(error))
            return False
        self._failures_in_a_row = 0
        self._answer(flight.queries, scores, max(flight.begun, self._free_since))
        self._free_since = time.monotonic()
        return True

    def _do(self, batch: tuple[Work, ...]) -> None:
        self._no_memory_now = False
        if isinstance(batch[0], Step):
            self._advance(batch[0])
        else:
            self._classify([work for work in batch if isinstance(work, Query)])
        if not self._no_memory_now:
            self._failures_in_a_row = 0

    def _give_up(self) -> None:
        """Count work that the device has no memory for; once a batch, lower the cap."""
        self.memory_failures += 1
        if self._no_memory_now:
            return
        self._no_memory_now = True
        self._failures_in_a_row += 1
        clip_frames = self.runtime.config.frames
        self.batcher.budget_frames = max(clip_frames, self.batcher.budget_frames // 2)
        if self._failures_in_a_row >= FAILURES_TO_END:
            log.critical("The device is out of memory again and again; this process should end")
            self.lost = True

    def _classify(self, queries: list[Query], *, freed: bool = False) -> None:
        """Score a batch; one that fails is halved, so that one clip cannot fail the others."""
        begun = time.monotonic()
        try:
            scores = self._start(queries)()
        except Exception as error:  # the thread must outlive any fault of a forward pass
            no_memory = is_out_of_memory(error)
            if self._hopeless(error, freed, alone=len(queries) == 1):
                failure = self._failure(error)
                settle((query.done, failure) for query in queries)
                return
        else:
            self._answer(queries, scores, begun)
            return
        if no_memory:  # the failed pass has let its tensors go, now that its error is gone
            self._free()
        middle = (len(queries) + 1) // 2
        for half in (queries[:middle], queries[middle:]):
            if half:
                self._classify(half, freed=freed or no_memory)

    def _answer(self, queries: list[Query], scores: list[MatchScores], begun: float) -> None:
        seconds = time.monotonic() - begun
        self.cost.observe("classify", sum(query.frames for query in queries), seconds)
        settle(
            (query.done, Classified(score, 1e3 * (begun - query.since), 1e3 * seconds))
            for query, score in zip(queries, scores, strict=True)
        )

    def _start(self, queries: Sequence[Query]) -> Callable[[], list[MatchScores]]:
        supports = [query.support for query in queries]
        frames_QTHWC = self._staging.fill([query.frames_THWC for query in queries])
        lanes = self._lanes
        if lanes is None or len(queries) < lanes.count:
            return self._pass(frames_QTHWC, supports)

        @torch.inference_mode()
        def scores(share: slice) -> list[MatchScores]:
            return self._pass(frames_QTHWC[share], supports[share])()

        finish = lanes.start(scores, shares(len(queries), lanes.count))
        return lambda: [one for of_lane in finish() for one in of_lane]

    def _pass(
        self, frames_QTHWC: Tensor, supports: Sequence[EncodedSupport]
    ) -> Callable[[], list[MatchScores]]:
        tokens_QTLD = self.runtime.trunk(frames_QTHWC)
        features_QTE = self.runtime.encode_query(tokens_QTLD, supports)
        return landing(self.runtime.score(features_QTE, supports), self.runtime.device)

    def _advance(self, step: Step, *, freed: bool = False) -> None:
        """Run one step, in two parts if there was no memory for it."""
        begun = time.monotonic()
        try:
            outcome = step.run(2 if freed else 1)
        except Exception as error:  # the thread must outlive any fault of a forward pass
            if not is_out_of_memory(error) or self._hopeless(error, freed, alone=False):
                self.batcher.abandon(step)
                settle([(step.done, self._failure(error))])
                return
        else:
            if step.timed:
                self.cost.observe(step.kind, step.frames, time.monotonic() - begun)
            if outcome is not None:
                settle([(step.done, outcome.result)])
            return
        self._free()
        self._advance(step, freed=True)

    def _hopeless(self, error: Exception, freed: bool, *, alone: bool) -> bool:
        """Tell whether there is no use in trying again with less."""
        if is_device_lost(error):
            return True
        return freed if is_out_of_memory(error) else alone

    def _free(self) -> None:
        log.warning("The device is out of memory; freeing caches and trying again with less")
        self.free_memory()
        if self.runtime.device.type == "cuda":
            torch.cuda.empty_cache()

    def _failure(self, error: Exception) -> DeviceMemoryError | EngineError:
        log.error("Work failed on the device", exc_info=error)
        if is_device_lost(error):
            self.lost = True
        if is_out_of_memory(error):
            self._give_up()
            return DeviceMemoryError(
                "The device has no memory for this work; ask again with fewer clips, or later."
            )
        failure = EngineError(
            f"The model failed with {type(error).__name__}; see the service's log."
        )
        failure.__cause__ = error
        return failure


def _late(dropped: Dropped) -> DeadlineError:
    """Say why work was not done; where nobody waits any more, nobody hears it."""
    waited_s = time.monotonic() - dropped.work.since
    return DeadlineError(
        f"The deadline could not be met after {waited_s:.1f} s of waiting for the device; "
        "allow more time, or ask again later."
    )
