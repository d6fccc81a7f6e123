"""Work for the device: what waits, what it gives, and what a failure of it means.

Dimensions: T frames, H W pixels, C colours.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import torch

from model.episode import EncodedSupport, MatchScores
from service.errors import DeadlineError

Kind = Literal["classify", "timeline", "register", "rebuild"]
NO_MEMORY = ("out of memory", "can't allocate memory", "failed to allocate", "bad allocation")
LOST = ("device-side assert", "illegal memory access", "unspecified launch failure", "misaligned")

log = logging.getLogger("kshot.engine")

Settlement = tuple["asyncio.Future[Any]", object]


class Awaited(Protocol):
    """What somebody waits for; a future is one."""

    def done(self) -> bool:
        """Tell whether it is settled or given up."""

    def cancelled(self) -> bool:
        """Tell whether it was given up."""


@dataclass(slots=True, eq=False, kw_only=True)
class Work:
    """Something for the device to do.

    Args:
        kind: The class of work, which decides what goes first.
        frames: What it costs.
        done: Settled with the outcome; cancelled when nobody wants it any more.
        tenant: Whose it is.
        deadline: Instant of the clock after which nobody wants the outcome.
        since: When it came.
        asked_by: The span of the request that asks, where requests are traced.
    """

    kind: Kind
    frames: int
    done: Any  # an Awaited; what settles it knows more of it
    tenant: str = ""
    deadline: float | None = None
    since: float = field(default_factory=time.monotonic)
    asked_by: Any = None


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
class Pass:
    """What the device did in one go.

    Args:
        works: A batch of queries, or a step alone.
        started: Instant of `time.monotonic()`.
        seconds: What it took.
        room_frames: Of the batch with what fills it up to a size that was recorded.
    """

    works: Sequence[Work]
    started: float
    seconds: float
    room_frames: int

    @property
    def frames(self) -> int:
        """Frames of its works."""
        return sum(work.frames for work in self.works)


WatchPass = Callable[[Pass], None]


def settle(settlements: Iterable[Settlement]) -> None:
    """Settle futures, each with a result or an exception, unless someone else has.

    Those of one loop are settled in one call, so that a batch wakes the loop once.
    """
    by_loop: dict[asyncio.AbstractEventLoop, list[Settlement]] = {}
    for future, outcome in settlements:
        by_loop.setdefault(future.get_loop(), []).append((future, outcome))
    for loop, of_loop in by_loop.items():
        try:
            loop.call_soon_threadsafe(_settle_here, of_loop)
        except RuntimeError:  # the loop has closed: nobody waits any more
            log.debug("Results came after the event loop had closed")


def _settle_here(settlements: list[Settlement]) -> None:
    for future, outcome in settlements:
        if future.done():
            continue
        if isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether the device or the machine had no memory left, by torch or ONNX Runtime."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and _says(error, NO_MEMORY)


def is_device_lost(error: BaseException) -> bool:
    """Tell whether every further call would fail too: a poisoned CUDA context."""
    return isinstance(error, RuntimeError) and _says(error, LOST)


def _says(error: BaseException, phrases: tuple[str, ...]) -> bool:
    text = str(error).lower()
    return any(phrase in text for phrase in phrases)


def late(work: Work) -> DeadlineError:
    """Say why work was not done; where nobody waits any more, nobody hears it."""
    waited_s = time.monotonic() - work.since
    return DeadlineError(
        f"The deadline could not be met after {waited_s:.1f} s of waiting for the device; "
        "allow more time, or ask again later."
    )
