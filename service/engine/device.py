"""The one thread that owns the device: it takes what the batcher gives, and outlives all faults.

Dimensions: Q query clips, T frames, H W pixels, C colours, L tokens, D width, E feature width.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from model.episode import EncodedSupport, MatchScores
from model.errors import KshotError
from model.passes.lanes import Lanes
from service.decoding.sandbox import NICENESS
from service.engine.cost import CostModel
from service.engine.passes.batching import SentBatch, Staging, landing, room_for, shares
from service.engine.queue import Batcher
from service.engine.runtimes.protocol import Runtime
from service.engine.work import (
    Classified,
    Pass,
    Query,
    Step,
    WatchPass,
    Work,
    is_device_lost,
    is_out_of_memory,
    late,
    settle,
)
from service.errors import DeviceMemoryError, EngineError, ServerStoppingError

LAST_PASS_S = 1.0  # for the pass at hand when the service stops
IDLE_S = 1.0  # between two signs of life
FAILURES_TO_END = 2  # batches in a row without memory, after which the process should be replaced
STOPPED = "The engine has stopped; start the service again."
LOST = "The device is lost, and this process ends; ask again in a moment."

log = logging.getLogger("kshot.engine")


class DeviceThread:
    """Runs what the batcher says: batches of queries and steps.

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
        self.watches: list[WatchPass] = []  # told of each pass, from this thread
        self._failures_in_a_row = 0
        self._no_memory_now = False  # in the batch at hand
        self._ahead = ahead
        self.lanes = Lanes(lanes, NICENESS) if lanes > 1 else None
        self._free_since = 0.0  # when the device last gave back a batch
        self._staging = Staging(pinned=runtime.device.type == "cuda", buffers=1 + ahead)
        self._thread = threading.Thread(target=self._run, name="device", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Fail what waits, and join; a pass that takes long ends with the process."""
        waiting = self.batcher.close()
        settle((work.done, EngineError(STOPPED)) for work in waiting)
        self._thread.join(LAST_PASS_S)
        if self.lanes is not None and not self._thread.is_alive():
            self.lanes.close()

    @property
    def silent_s(self) -> float:
        """Seconds since the last sign of life; endless once the thread or the device is gone."""
        if self.lost or not self._thread.is_alive():
            return float("inf")
        return time.monotonic() - self.beat

    def put(self, works: Sequence[Work]) -> None:
        """Queue work, all of it at once.

        Raises:
            EngineError: The thread is stopping or gone; ServerStoppingError: the device is.
        """
        if self.lost:
            raise ServerStoppingError(LOST)
        if not self._thread.is_alive() or not self.batcher.put(works):
            raise EngineError(STOPPED)

    def _run(self) -> None:
        in_progress: SentBatch | None = None
        with torch.inference_mode():
            while True:
                self.beat = time.monotonic()
                next_work = (
                    self.batcher.take(IDLE_S) if in_progress is None else self.batcher.take_full()
                )
                settle((one.work.done, late(one.work)) for one in next_work.dropped)
                sent = self._send(next_work.batch) if self._ahead else None
                in_progress = self._landed(in_progress, sent)
                if next_work.batch and sent is None:
                    self._do(next_work.batch)
                elif next_work.closed and in_progress is None:
                    return

    def _send(self, batch: tuple[Work, ...]) -> SentBatch | None:
        """Give queries to the device without waiting for it; None where that cannot be."""
        queries = [work for work in batch if isinstance(work, Query)]
        if not queries:
            return None
        started = time.monotonic()
        try:
            return SentBatch(queries, started, self._start(queries))
        except Exception as error:  # done again by itself; its record must not keep the tensors
            log.warning("A batch could not be sent ahead: %s", str(error))
            return None

    def _landed(
        self, in_progress: SentBatch | None, following: SentBatch | None
    ) -> SentBatch | None:
        """Answer the earlier of two batches; return the one that is under way then.

        Where one failed both are waited for, as their clips lie in memory that is used in turn,
        and what failed is done again by itself.
        """
        if in_progress is None or self._land(in_progress):
            return following
        failed = [in_progress]
        if following is not None and not self._land(following):
            failed.append(following)
        for one in failed:
            self._do(tuple(one.queries))
        return None

    def _land(self, in_progress: SentBatch) -> bool:
        """Wait for a batch and answer it; False when it failed."""
        try:
            scores = in_progress.scores()
        except Exception as error:  # as in `_send`
            log.warning("A batch sent ahead failed: %s", str(error))
            return False
        self._failures_in_a_row = 0
        self._answer(in_progress.queries, scores, max(in_progress.started, self._free_since))
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
        least, half = self.runtime.config.frames, self.batcher.budget_frames // 2
        self.batcher.budget_frames = max(least, half)
        if self._failures_in_a_row >= FAILURES_TO_END:
            log.critical("The device is out of memory again and again; this process should end")
            self.lost = True

    def _classify(self, queries: list[Query], *, freed: bool = False) -> None:
        """Score a batch; one that fails is halved, so that one clip cannot fail the others."""
        started = time.monotonic()
        try:
            scores = self._start(queries)()
        except Exception as error:  # the thread must outlive any fault of a forward pass
            no_memory = is_out_of_memory(error)
            if self._hopeless(error, freed, alone=len(queries) == 1):
                failure = self._failure(error)
                settle((query.done, failure) for query in queries)
                return
        else:
            self._answer(queries, scores, started)
            return
        if no_memory:  # the failed pass has let its tensors go, now that its error is gone
            self._free()
        middle = (len(queries) + 1) // 2
        for half in (queries[:middle], queries[middle:]):
            if half:
                self._classify(half, freed=freed or no_memory)

    def _answer(self, queries: list[Query], scores: list[MatchScores], started: float) -> None:
        frames = sum(query.frames for query in queries)
        seconds = self._passed(queries, started, room_for(frames, self.runtime.buckets))
        self.cost.observe("classify", frames, seconds)
        settle(
            (query.done, Classified(score, 1e3 * (started - query.since), 1e3 * seconds))
            for query, score in zip(queries, scores, strict=True)
        )

    def _passed(self, works: Sequence[Work], started: float, room_frames: int) -> float:
        """Tell of a pass, and return its seconds."""
        seconds = time.monotonic() - started
        for watch in self.watches:
            try:
                watch(Pass(works, started, seconds, room_frames))
            except Exception:  # the thread must outlive any fault of those who only look on
                log.exception("A pass could not be told of")
        return seconds

    def _start(self, queries: Sequence[Query]) -> Callable[[], list[MatchScores]]:
        supports = [query.support for query in queries]
        frames_QTHWC = self._staging.fill([query.frames_THWC for query in queries])
        lanes = self.lanes
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
        started = time.monotonic()
        try:
            outcome = step.run(2 if freed else 1)
        except Exception as error:  # the thread must outlive any fault of a forward pass
            if not is_out_of_memory(error) or self._hopeless(error, freed, alone=False):
                self.batcher.abandon(step)
                settle([(step.done, self._failure(error))])
                return
        else:
            seconds = self._passed([step], started, step.frames)
            if step.timed:
                self.cost.observe(step.kind, step.frames, seconds)
            if outcome is not None:
                settle([(step.done, outcome.result)])
            return
        self._free()
        self._advance(step, freed=True)

    def _hopeless(self, error: Exception, freed: bool, *, alone: bool) -> bool:
        """Tell whether there is no use in trying again with less."""
        return is_device_lost(error) or (freed if is_out_of_memory(error) else alone)

    def _free(self) -> None:
        log.warning("The device is out of memory; freeing caches and trying again with less")
        self.free_memory()
        if self.runtime.device.type == "cuda":
            torch.cuda.empty_cache()

    def _failure(self, error: Exception) -> KshotError:
        log.error("Work failed on the device", exc_info=error)
        if is_device_lost(error):
            self.lost = True
            return ServerStoppingError(LOST)
        if is_out_of_memory(error):
            self._give_up()
            return DeviceMemoryError(
                "The device has no memory for this work; ask again with fewer clips, or later."
            )
        failure = EngineError(f"The model failed with {type(error).__name__}; see the log.")
        failure.__cause__ = error
        return failure
