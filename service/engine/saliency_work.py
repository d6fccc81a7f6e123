"""What the engine does to say where an answer was seen: one more pass a clip, by itself.

Dimensions: T frames, S side of a grid, H W pixels, C colours.
"""

import asyncio
import time
from dataclasses import dataclass
from functools import partial

import numpy as np

from model.episode import EncodedSupport
from model.errors import MethodError
from service.engine.runtimes.protocol import Runtime
from service.engine.window_work import WindowWork
from service.engine.work import Outcome, Step, is_out_of_memory

PASSES = 3  # that a clip costs which is explained, its answer among them, rounded up


@dataclass(frozen=True, slots=True)
class Explained:
    """Where an answer was seen in a clip.

    Args:
        grid_TSS: In [0, 1], by frame, row and column; None where it cannot be said.
        reason: Why there is none.
        compute_ms: What it took on the device.
    """

    grid_TSS: np.ndarray | None
    reason: str | None
    compute_ms: float


class SaliencyWork(WindowWork):
    """The part of an `Engine` that says where answers were seen."""

    async def explain(
        self,
        frames_THWC: np.ndarray,
        support: EncodedSupport,
        label: int,
        *,
        tenant: str = "",
        deadline: float | None = None,
    ) -> Explained:
        """Tell where one label's score comes from, in one clip; queries of others go first.

        Args:
            frames_THWC: RGB uint8.
            support: The task.
            label: Index of the class.
            tenant: Whose work it is; tenants share the device fairly.
            deadline: Instant of `time.monotonic()` after which nobody wants the result.

        Raises:
            DeadlineError: The deadline has passed.
        """
        done: asyncio.Future[Explained] = asyncio.get_running_loop().create_future()
        step = Step(
            kind="timeline",
            frames=(PASSES - 1) * self.model.frames,
            tenant=tenant,
            deadline=deadline,
            done=done,
            run=partial(_explain, self._recognizer, frames_THWC, support, label),
        )
        with self._queued([step]):
            return await done


def _explain(
    runtime: Runtime, frames_THWC: np.ndarray, support: EncodedSupport, label: int, parts: int
) -> Outcome:
    started, grid_TSS, reason = time.monotonic(), None, None
    try:
        grid_TSS = runtime.saliency(frames_THWC, support, label)
    except MethodError:
        reason = "It cannot be said where it was seen: the network keeps no square grid of places."
    except Exception as error:
        if parts == 1 or not is_out_of_memory(error):
            raise
        reason = "The device has no memory to say where it was seen; ask again later."
    return Outcome(Explained(grid_TSS, reason, 1e3 * (time.monotonic() - started)))
