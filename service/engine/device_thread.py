"""The one thread that owns the device: queries first, registration in slices between them.

Dimensions: Q query clips, T frames, H W pixels, C colours, L tokens, D width.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from model.recognizer import EncodedSupport, MatchScores
from service.engine.runtimes.protocol import Runtime
from service.refusals import EngineError

MAX_BATCHES_BETWEEN_SLICES = 4  # so that registration goes on under any load of queries
IDLE_S = 1.0

log = logging.getLogger("kshot.engine")


@dataclass(frozen=True, slots=True)
class Classified:
    """One query's scores, and where its time on the device went."""

    scores: MatchScores
    queue_ms: float
    compute_ms: float


@dataclass(slots=True)
class Query:
    """One clip waiting for the device."""

    frames_THWC: np.ndarray
    support: EncodedSupport
    done: "asyncio.Future[Classified]"
    since: float = field(default_factory=time.monotonic)


@dataclass(slots=True)
class Job:
    """Work in slices: a generator that yields between them and returns its result."""

    steps: Generator[None, None, Any]
    done: "asyncio.Future[Any]"


class DeviceThread:
    """Runs queries in batches and jobs in slices, whichever is there, never waiting for more.

    Args:
        recognizer: The weights; nobody else calls them while the thread runs.
        batch_clips: Most queries in one forward pass.
    """

    def __init__(self, recognizer: Runtime, batch_clips: int) -> None:
        self.recognizer = recognizer
        self.batch_clips = batch_clips
        self.beat = time.monotonic()
        self.drain_rate = 0.0
        self._queries: deque[Query] = deque()
        self._jobs: deque[Job] = deque()
        self._wake = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="device", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Finish the work at hand, fail what waits, and join."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join()

    @property
    def silent_s(self) -> float:
        """Seconds since the thread last said that it lives; endless once it is dead."""
        return time.monotonic() - self.beat if self._thread.is_alive() else float("inf")

    @property
    def waiting(self) -> int:
        """Queries that wait."""
        return len(self._queries)

    def put(self, work: Query | Job) -> None:
        """Queue work.

        Raises:
            EngineError: The thread is stopping or gone.
        """
        with self._wake:
            if self._stopping or not self._thread.is_alive():
                raise EngineError("The engine has stopped; start the service again.")
            self._queries.append(work) if isinstance(work, Query) else self._jobs.append(work)
            self._wake.notify()

    def _run(self) -> None:
        batches = 0
        with torch.inference_mode():
            while not self._stopping:
                self.beat = time.monotonic()
                queries = self._take()
                if queries and (batches < MAX_BATCHES_BETWEEN_SLICES or not self._jobs):
                    batches += 1
                    self._classify(queries)
                    continue
                self._queries.extendleft(reversed(queries))
                batches = 0
                if self._jobs:
                    self._advance(self._jobs.popleft())
                    continue
                with self._wake:
                    if not (self._queries or self._jobs or self._stopping):
                        self._wake.wait(IDLE_S)
        stopped = EngineError("The engine has stopped; start the service again.")
        for done in [work.done for work in self._queries] + [work.done for work in self._jobs]:
            resolve(done, stopped)

    def _take(self) -> list[Query]:
        """Take the oldest queries; those whose client gave up are dropped here."""
        taken: list[Query] = []
        while self._queries and len(taken) < self.batch_clips:
            query = self._queries.popleft()
            if not query.done.cancelled():
                taken.append(query)
        return taken

    def _classify(self, queries: list[Query]) -> None:
        """Score a batch; one that fails is halved, so that one clip cannot fail the others."""
        begun = time.monotonic()
        try:
            supports = [query.support for query in queries]
            tokens_QTLD = self.recognizer.trunk(np.stack([query.frames_THWC for query in queries]))
            features_QTE = self.recognizer.encode_query(tokens_QTLD, supports)
            scores = self.recognizer.match(features_QTE, supports)
        except Exception as error:  # the thread must outlive any fault of a forward pass
            if len(queries) > 1:
                middle = len(queries) // 2
                self._classify(queries[:middle])
                self._classify(queries[middle:])
                return
            log.exception("A query failed on the device")
            resolve(queries[0].done, _failed(error))
            return
        compute_ms = 1e3 * (time.monotonic() - begun)
        self.drain_rate = 1e3 * sum(len(query.frames_THWC) for query in queries) / compute_ms
        for query, score in zip(queries, scores, strict=True):
            resolve(query.done, Classified(score, 1e3 * (begun - query.since), compute_ms))

    def _advance(self, job: Job) -> None:
        """Run one slice of a job; jobs take turns."""
        if job.done.cancelled():
            job.steps.close()
            return
        try:
            next(job.steps)
        except StopIteration as finished:
            resolve(job.done, finished.value)
        except Exception as error:  # the thread must outlive any fault of a forward pass
            log.exception("A job failed on the device")
            resolve(job.done, _failed(error))
        else:
            self._jobs.append(job)


def _failed(error: Exception) -> EngineError:
    failure = EngineError(f"The model failed with {type(error).__name__}; see the service's log.")
    failure.__cause__ = error
    return failure


def resolve(future: "asyncio.Future[Any]", outcome: object) -> None:
    """Settle a future of the event loop from this thread, unless someone else has."""

    def settle() -> None:
        if future.done():
            return
        if isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    try:
        future.get_loop().call_soon_threadsafe(settle)
    except RuntimeError:  # the loop has closed: nobody waits any more
        log.debug("A result came after the event loop had closed")
