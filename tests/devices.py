"""Devices that are not there: the same methods as a runtime, and a fault or a delay of choice."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor


class Device:
    """A runtime behind which something happens before each trunk pass.

    Args:
        runtime: Does the work.
        before: Told the number of clips; it may raise or wait.
    """

    def __init__(self, runtime: Any, before: Callable[[int], None]) -> None:  # noqa: ANN401
        self.runtime = runtime
        self.before = before

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self.runtime, name)

    def trunk(self, frames_BTHWC: np.ndarray | Tensor) -> Tensor:
        self.before(len(frames_BTHWC))
        return self.runtime.trunk(frames_BTHWC)


class SmallMemory:
    """A device that holds so many clips at once, and notes what it was asked for."""

    def __init__(self, clips: int) -> None:
        self.clips = clips
        self.asked: list[int] = []

    def __call__(self, clips: int) -> None:
        self.asked.append(clips)
        if clips > self.clips:
            raise torch.OutOfMemoryError(f"CUDA out of memory: {clips} clips.")


def slow(seconds: float) -> Callable[[int], None]:
    """Make each pass take longer, as a large network would."""
    return lambda _: time.sleep(seconds)
