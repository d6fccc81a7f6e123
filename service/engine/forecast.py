"""When work that comes now will be done, by what waits and by the pace measured lately."""

import time
from dataclasses import dataclass

from service.engine.cost import CostModel
from service.engine.queue import Batcher
from service.engine.work import Kind
from service.errors import DeadlineError, DeadlineUnmetError

SUPPORTS: tuple[Kind, ...] = ("register", "rebuild")


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
