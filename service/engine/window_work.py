"""What the engine does for long videos: each picture encoded once, each window scored, in steps.

Dimensions: N pictures, B windows, T pictures of a window, H W pixels, C colours, L tokens, D width.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from model.episode import EncodedSupport, MatchScores, plain
from model.passes.lanes import Lanes, Made
from service.engine.cost import Forecast
from service.engine.passes.batching import shares
from service.engine.registration import Run, ends
from service.engine.runtimes.protocol import Runtime
from service.engine.support_work import SupportWork
from service.engine.work import Outcome, Step

Window = Sequence[int]  # numbers of its pictures

STEP_S = 0.05  # about the longest that a query waits for a step, where a lane can do less
MOST_CLIPS = 2  # of a lane in one step: kernels gain nothing from more


class Turn(NamedTuple):
    """What a lane does in one step: pictures that it begins, or windows that it scores."""

    pictures: int
    windows: int

    @classmethod
    def of(cls, forecast: Forecast) -> Self:
        """Return as much as a query may wait for, by what a clip took at the start."""
        clips = min(MOST_CLIPS, STEP_S / forecast.alone_s if forecast.alone_s else 0.0)
        of_clip, least = forecast.batcher.clip_frames, max(1, forecast.slice_frames)
        return cls(max(least, int(clips * of_clip)), max(1, least // of_clip, int(clips)))


@dataclass(slots=True, eq=False)
class Reel:
    """The pictures of a video that windows still look at; after the first step the device's.

    Args:
        support: The task that windows are scored by.
        held: What has begun of each, by number.
    """

    support: EncodedSupport
    held: dict[int, Tensor] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Stretch:
    """Some new pictures of a reel, and the windows that they complete."""

    runtime: Runtime
    lanes: Lanes | None
    reel: Reel
    numbers: Sequence[int]
    frames_NHWC: np.ndarray
    windows: Sequence[Window]
    needed_from: int
    found: dict[int, MatchScores] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many cores take their share of a step each."""
        return 1 if self.lanes is None else self.lanes.count

    def runs(self, turn: Turn) -> Iterator[tuple[int, Run, bool]]:
        """Yield frames, what is to be done, and whether its time says what frames cost."""
        of_window, apart = self.runtime.config.frames, self.runtime.frames_apart
        for part in ends(len(self.numbers), self.count * turn.pictures):
            yield part[1] - part[0], partial(self.encode, *part), apart
        for part in ends(len(self.windows), self.count * turn.windows):
            yield (part[1] - part[0]) * of_window, partial(self.score, *part), False
        if not self.windows:
            yield 1, partial(self.score, 0, 0), False

    def encode(self, first: int, last: int, parts: int) -> Outcome | None:
        """Do what the trunk does of each picture by itself."""
        for places, made in self._spread(self._begun, first, last, parts):
            self.reel.held |= zip((self.numbers[place] for place in places), made, strict=True)
        return None

    def score(self, first: int, last: int, parts: int) -> Outcome | None:
        """Score some windows; after the last one, let go what no later window looks at."""
        for places, scores in self._spread(self._scores, first, last, parts):
            self.found |= zip(places, scores, strict=True)
        if last < len(self.windows):
            return None
        for number in [number for number in self.reel.held if number < self.needed_from]:
            del self.reel.held[number]
        return Outcome([self.found[place] for place in range(len(self.windows))])

    def _spread(
        self, work: Callable[[range], Made], first: int, last: int, parts: int
    ) -> Iterator[tuple[range, Made]]:
        """Do some work with the places of so many parts in turn, each shared among the lanes."""
        for share in shares(last - first, parts):
            places = range(first, last)[share]
            shared = [part for lane in shares(len(places), self.count) if (part := places[lane])]
            if self.lanes is None or len(shared) < 2:
                made = [work(part) for part in shared]
            else:
                made = self.lanes.start(torch.inference_mode()(work), shared)()
            yield from zip(shared, made, strict=True)

    def _begun(self, places: range) -> Tensor:
        return self.runtime.begin(self.frames_NHWC[places.start : places.stop])

    def _scores(self, places: range) -> list[MatchScores]:
        held, runtime = self.reel.held, self.runtime
        windows = [self.windows[place] for place in places]
        looked_at = torch.stack([torch.stack([held[n] for n in window]) for window in windows])
        supports = [self.reel.support] * len(windows)
        features_BTE = runtime.encode_query(runtime.finish(looked_at), supports)
        return plain(runtime.score(features_BTE, supports))


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
        lanes = self._thread.lanes
        stretch = _Stretch(
            self._recognizer, lanes, reel, numbers, frames_NHWC, windows, needed_from
        )
        made = partial(Step, kind="timeline", tenant=tenant, deadline=deadline, done=done)
        steps = [
            made(frames=frames, run=run, timed=timed)
            for frames, run, timed in stretch.runs(Turn.of(self.forecast))
        ]
        with self._queued(steps):
            return await done
