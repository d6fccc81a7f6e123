"""What the engine does for long videos: each picture encoded once, each window scored, in steps.

Dimensions: N pictures, B windows, T pictures of a window, H W pixels, C colours, L tokens, D width.
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor

from model.episode import EncodedSupport, MatchScores, plain
from service.engine.registration import Run, ends
from service.engine.runtimes.protocol import Runtime
from service.engine.support_work import SupportWork
from service.engine.work import Outcome, Step

Window = Sequence[int]  # numbers of its pictures


@dataclass(slots=True, eq=False)
class Reel:
    """The pictures of a video that windows still look at; after the first step the device's.

    Args:
        support: The task that windows are scored by.
        held: By number: tokens [L, D], or frames [H, W, C] where the network takes clips whole.
    """

    support: EncodedSupport
    held: dict[int, Tensor] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Stretch:
    """Some new pictures of a reel, and the windows that they complete."""

    runtime: Runtime
    reel: Reel
    numbers: Sequence[int]
    frames_NHWC: np.ndarray
    windows: Sequence[Window]
    needed_from: int
    found: dict[int, MatchScores] = field(default_factory=dict)

    def runs(self, slice_frames: int) -> Iterator[tuple[int, Run, bool]]:
        """Yield frames, what is to be done, and whether its time says what frames cost."""
        of_window, apart = self.runtime.config.frames, self.runtime.frames_apart
        for part in ends(len(self.numbers), slice_frames):
            yield part[1] - part[0], partial(self.encode, *part), apart
        for part in ends(len(self.windows), max(1, slice_frames // of_window)):
            yield (part[1] - part[0]) * of_window, partial(self.score, *part), False
        if not self.windows:
            yield 1, partial(self.score, 0, 0), False

    def encode(self, first: int, last: int, parts: int) -> Outcome | None:
        """Run the trunk on some pictures."""
        for places in np.array_split(np.arange(first, last), parts):
            if not len(places):
                continue
            frames_NHWC = self.frames_NHWC[places[0] : places[-1] + 1]
            if self.runtime.frames_apart:
                made = self.runtime.trunk_frames(frames_NHWC)
            else:
                made = torch.from_numpy(frames_NHWC)
            self.reel.held |= zip((self.numbers[place] for place in places), made, strict=True)
        return None

    def score(self, first: int, last: int, parts: int) -> Outcome | None:
        """Score some windows; after the last one, let go what no later window looks at."""
        for places in np.array_split(np.arange(first, last), parts):
            if len(places):
                windows = [self.windows[place] for place in places]
                self.found |= zip(places.tolist(), self._scores(windows), strict=True)
        if last < len(self.windows):
            return None
        for number in [number for number in self.reel.held if number < self.needed_from]:
            del self.reel.held[number]
        return Outcome([self.found[place] for place in range(len(self.windows))])

    def _scores(self, windows: Sequence[Window]) -> list[MatchScores]:
        held, runtime = self.reel.held, self.runtime
        looked_at = torch.stack([torch.stack([held[n] for n in window]) for window in windows])
        tokens_BTLD = looked_at if runtime.frames_apart else runtime.trunk(looked_at)
        supports = [self.reel.support] * len(windows)
        return plain(runtime.score(runtime.encode_query(tokens_BTLD, supports), supports))


class WindowWork(SupportWork):
    """The part of an `Engine` that scores the windows of long videos."""

    async def score_windows(
        self,
        reel: Reel,
        numbers: Sequence[int],
        frames_NHWC: np.ndarray,
        windows: Sequence[Window],
        needed_from: int,
        *,
        tenant: str = "",
        deadline: float | None = None,
    ) -> list[MatchScores]:
        """Encode new pictures of a video and score the windows that are complete with them.

        Args:
            reel: What is held of the video.
            numbers: Of the new pictures.
            frames_NHWC: RGB uint8.
            windows: Of pictures that are held or new.
            needed_from: The first picture that later windows look at.
            tenant: Whose work it is; tenants share the device fairly.
            deadline: Instant of `time.monotonic()` after which nobody wants the result.

        Raises:
            DeadlineError: The deadline has passed.
            DeviceMemoryError: The device has no memory for it.
        """
        done: asyncio.Future[list[MatchScores]] = asyncio.get_running_loop().create_future()
        stretch = _Stretch(self._recognizer, reel, numbers, frames_NHWC, windows, needed_from)
        made = partial(Step, kind="timeline", tenant=tenant, deadline=deadline, done=done)
        steps = [
            made(frames=frames, run=run, timed=timed)
            for frames, run, timed in stretch.runs(max(1, self.forecast.slice_frames))
        ]
        with self._queued(steps):
            return await done
