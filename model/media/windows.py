"""Windows of a long video, laid so that neighbours share their pictures.

A window is looked at as a clip is: at the centre of each of T equal spans. All windows' instants
lie on one grid, so a picture is decoded and encoded once, however many windows look at it.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from model.media.sampling import SLACK_S


@dataclass(frozen=True, slots=True)
class WindowGrid:
    """Which instants the windows of a video look at.

    Args:
        frames: T, instants of a window.
        step_s: Between two instants of the grid.
        spread: Grid steps between two instants of a window.
        stride: Grid steps between the starts of two windows.
    """

    frames: int
    step_s: float
    spread: int
    stride: int

    @classmethod
    def of(cls, frames: int, window_s: float, stride_s: float) -> Self:
        """Lay windows; the stride is rounded to a part or a multiple of the instants' distance.

        Args:
            frames: T.
            window_s: Length of a window.
            stride_s: About how far the next one begins.
        """
        apart_s = window_s / frames
        spread = max(1, round(apart_s / stride_s))
        step_s = apart_s / spread
        return cls(frames, step_s, spread, max(1, round(stride_s / step_s)))

    @property
    def window_s(self) -> float:
        """Length of a window."""
        return self.frames * self.spread * self.step_s

    @property
    def stride_s(self) -> float:
        """From the start of a window to that of the next."""
        return self.stride * self.step_s

    def instant_s(self, number: int) -> float:
        """Return when an instant of the grid is."""
        return (number + self.spread / 2) * self.step_s

    def start_s(self, window: int) -> float:
        """Return where a window begins."""
        return window * self.stride_s

    def centre_s(self, window: int) -> float:
        """Return the middle of a window."""
        return self.start_s(window) + self.window_s / 2

    def instants_of(self, window: int) -> range:
        """Return the numbers of the instants that a window looks at."""
        first = window * self.stride
        return range(first, first + self.frames * self.spread, self.spread)

    def last_of(self, window: int) -> int:
        """Return the last instant that a window looks at."""
        return window * self.stride + (self.frames - 1) * self.spread

    def wanted(self) -> Iterator[int]:
        """Yield the numbers of the instants that any window looks at, without end."""
        number = 0
        while True:
            if self._is_wanted(number):
                yield number
            number += 1

    def count(self, duration_s: float) -> int:
        """Tell how many windows lie wholly inside a video."""
        return max(0, math.floor((duration_s - self.window_s + SLACK_S) / self.stride_s) + 1)

    def _is_wanted(self, number: int) -> bool:
        starts = (number - place * self.spread for place in range(self.frames))
        return any(start >= 0 and start % self.stride == 0 for start in starts)
