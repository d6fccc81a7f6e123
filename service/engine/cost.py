"""How long the device takes, and when work that comes now will be done.

Seconds are per_frame * frames + fixed, fitted to the last batches.

The line is that of Theil and Sen (the median of the slopes between all pairs), which a quarter of
wild observations cannot move: first passes, pauses, a busy machine. It errs on the short side where
it knows little, because it is used to refuse work: with fewer than 5 observations it says 0, and
from one size alone it expects a larger batch to take no longer.
"""

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from service.engine.queue import Batcher
from service.engine.work import Kind
from service.errors import DeadlineError, DeadlineUnmetError

WINDOW = 50
FEWEST = 5
FORGOTTEN_S = 60.0  # what refuses all work learns nothing new, so old knowledge must end
SUPPORTS: tuple[Kind, ...] = ("register", "rebuild")
OVERHEAD = 0.2  # share of fixed time from which on a batch is mostly worth it


class Observed(NamedTuple):
    """One batch."""

    frames: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Line:
    """Seconds by frames; what is known of one size alone is a step, not a slope."""

    per_frame: float
    fixed: float
    level: float = math.inf  # never more than this

    def seconds(self, frames: int) -> float:
        """Return the time for so many frames."""
        return min(self.per_frame * frames + self.fixed, self.level) if frames > 0 else 0.0


class CostModel:
    """Observed by the device thread, asked by all.

    Args:
        clock: Seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._observed: dict[Kind, deque[Observed]] = {}
        self._lines: dict[Kind, Line] = {}
        self._unfitted: Counter[Kind] = Counter()
        self._last: dict[Kind, float] = {}

    def rate(self, *kinds: Kind) -> float:
        """Return frames a second over the last batches of these kinds, or of all; 0 before any."""
        wanted = kinds or tuple(self._observed)
        latest = [one for kind in wanted for one in tuple(self._observed.get(kind, ()))]
        seconds = sum(one.seconds for one in latest)
        return sum(one.frames for one in latest) / seconds if seconds > 0 else 0.0

    def observe(self, kind: Kind, frames: int, seconds: float) -> None:
        """Learn what a batch took."""
        kept = self._observed.setdefault(kind, deque(maxlen=WINDOW))
        kept.append(Observed(frames, seconds))
        self._last[kind] = self.clock()
        self._unfitted[kind] += 1
        if len(kept) >= FEWEST and self._unfitted[kind] >= len(kept) // 5:  # a fit takes 0.3 ms
            self._unfitted[kind] = 0
            self._lines[kind] = fit(kept)

    def predict(self, kind: Kind, frames: int) -> float:
        """Return the seconds of one batch; 0 where too little is known."""
        line = self._line(kind)
        return 0.0 if line is None else line.seconds(frames)

    def drained_s(self, kind: Kind, frames: int, batch_frames: int) -> float:
        """Return the seconds of so many frames in full batches."""
        full, rest = divmod(frames, batch_frames)
        return full * self.predict(kind, batch_frames) + self.predict(kind, rest)

    def worthwhile_frames(self, kind: Kind) -> int:
        """Return the frames from which on fixed time is a fifth of a batch's, or less."""
        line = self._line(kind)
        if line is None or line.per_frame <= 0:
            return 0
        return math.ceil(line.fixed * (1 / OVERHEAD - 1) / line.per_frame)

    def _line(self, kind: Kind) -> Line | None:
        if self.clock() - self._last.get(kind, -math.inf) > FORGOTTEN_S:
            return None
        return self._lines.get(kind)


@dataclass(slots=True)
class Forecast:
    """Looks ahead.

    Args:
        batcher: What waits.
        cost: How long batches take.
        slice_frames: Of a registration; 0 until it is measured.
        alone_s: Seconds of one support clip on an idle device, as measured at the start; 0 until
            then.
    """

    batcher: Batcher
    cost: CostModel
    slice_frames: int
    alone_s: float = 0.0

    def admit(self, kind: Kind, frames: int, tenant: str, deadline: float | None) -> None:
        """Refuse what cannot be done in time.

        Raises:
            DeadlineError: The deadline has passed; DeadlineUnmetError: it cannot be met.
        """
        if deadline is None:
            return
        left_s = deadline - time.monotonic()
        ahead = self.batcher.ahead(kind, tenant, frames)
        ahead[kind] += frames
        full = {"classify": self.batcher.budget_frames}
        needed_s = sum(
            self.cost.drained_s(each, count, full.get(each, self.slice_frames))
            for each, count in ahead.items()
        )
        if left_s <= 0:
            raise DeadlineError("The deadline has passed; allow more time, or ask again later.")
        if needed_s > left_s:
            raise DeadlineUnmetError(
                f"The device needs {needed_s:.1f} s until this is done and {left_s:.1f} s are left "
                "to the deadline; allow more time, or ask again later.",
                retry_after_s=needed_s,
            )

    def rebuilt_s(self, clips: int, tenant: str = "") -> float:
        """Return the seconds until support clips that come now are encoded again.

        Unlike `admit` it knows something from the start on, and forgets nothing: what is refused
        by it goes on, so that it learns whether it was right.
        """
        frames = clips * self.batcher.clip_frames
        ahead = self.batcher.ahead("rebuild", tenant, frames)
        of_query = self.cost.rate("classify")
        queries_s = ahead["classify"] / of_query if of_query > 0 else 0.0
        others = sum(ahead[kind] for kind in SUPPORTS) / self.batcher.clip_frames
        return queries_s + (others + clips) * self.clip_s

    @property
    def clip_s(self) -> float:
        """Seconds of one support clip, as slow as it was at the start or lately; 0 at first."""
        rate = self.cost.rate(*SUPPORTS)
        return max(self.alone_s, self.batcher.clip_frames / rate if rate > 0 else 0.0)


def fit(observed: Sequence[Observed] | deque[Observed]) -> Line:
    """Fit a line, neither slope nor fixed time below 0."""
    frames_N = np.array([one.frames for one in observed], dtype=float)
    seconds_N = np.array([one.seconds for one in observed], dtype=float)
    first, second = np.triu_indices(len(frames_N), k=1)
    run = frames_N[second] - frames_N[first]
    if not run.any():
        level = float(np.median(seconds_N))
        return Line(level / float(frames_N[0]), 0.0, level)
    rise = seconds_N[second] - seconds_N[first]
    per_frame = max(0.0, float(np.median(rise[run != 0] / run[run != 0])))
    fixed = float(np.median(seconds_N - per_frame * frames_N))
    if fixed < 0:
        return Line(float(np.median(seconds_N / frames_N)), 0.0)
    return Line(per_frame, fixed)
