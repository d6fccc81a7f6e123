"""The supports of one task on their way through the device, slice by slice.

Dimensions: S B support clips, N frames, A stages, T frames of a clip, H W pixels, C colours, L
tokens, D width, E feature width.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor

from service.engine.runtimes.protocol import Runtime
from service.engine.work import Awaited, Kind, Outcome, Step

Progress = Callable[[int], None]
Run = Callable[[int], Outcome | None]


def silent(_: int) -> None:
    """Ignore progress."""


@dataclass(slots=True)
class Registration:
    """What is known of a task's supports so far.

    Where no support sees another, a clip's tokens become features as soon as they are there, so
    that no more than a slice of them is held.

    Args:
        runtime: Encodes them.
        frames_STHWC: RGB uint8, of the clips whose features are not known.
        classes: Class index of each clip of the task; empty where features alone are wanted, or,
            with text, of labels without clips.
        text_NAE: Or None to score by video alone.
        progress: Told the number of clips done.
        known: Frame features of clips that were encoded before, by their place in the task; only
            where no support sees another.
    """

    runtime: Runtime
    frames_STHWC: np.ndarray
    classes: Sequence[int]
    text_NAE: Tensor | None
    progress: Progress
    known: Mapping[int, Tensor] = field(default_factory=dict)
    parts: list[Tensor] = field(default_factory=list)  # tokens of a clip that is not whole yet
    tokens: list[Tensor] = field(default_factory=list)
    features: list[Tensor] = field(default_factory=list)

    def steps(
        self, slice_frames: int, *, kind: Kind, tenant: str, deadline: float | None, done: Awaited
    ) -> list[Step]:
        """Cut the work into steps; the last one settles `done`."""
        return [
            Step(
                kind=kind,
                frames=frames,
                tenant=tenant,
                deadline=deadline,
                done=done,
                run=run,
                timed=timed,
            )
            for frames, run, timed in self._runs(slice_frames)
        ]

    def _runs(self, slice_frames: int) -> Iterator[tuple[int, Run, bool]]:
        """Yield frames, what is to be done, and whether its time says what frames cost."""
        clips, of_clip = self.frames_STHWC.shape[:2]
        for start, stop in ends(clips, max(1, slice_frames // of_clip)):
            if slice_frames >= of_clip:
                yield (stop - start) * of_clip, partial(self._clips, start, stop), True
            else:
                for first, last in ends(of_clip, slice_frames):
                    yield last - first, partial(self._frames, start, first, last), True
            if self.runtime.supports_apart:
                yield 1, self._to_features, False
        yield 1, self._finish, False

    def _clips(self, start: int, stop: int, parts: int) -> None:
        """Run the trunk on whole clips."""
        sections = np.array_split(self.frames_STHWC[start:stop], parts)
        done = [self.runtime.trunk(part) for part in sections if len(part)]
        self.tokens.append(torch.cat(done))
        self.progress(stop)

    def _frames(self, clip: int, first: int, last: int, _: int) -> None:
        """Run the trunk on frames of one clip."""
        self.parts.append(self.runtime.trunk_frames(self.frames_STHWC[clip, first:last]))
        if last == self.frames_STHWC.shape[1]:
            self.tokens.append(torch.cat(self.parts)[None])
            self.parts.clear()
            self.progress(clip + 1)

    def _to_features(self, parts: int) -> None:
        """Finish the clips whose tokens are there, each by itself."""
        tokens_BTLD = torch.cat(self.tokens)
        sections = torch.tensor_split(tokens_BTLD, min(parts, len(tokens_BTLD)))
        self.features.append(torch.cat([self.runtime.support_features(one) for one in sections]))
        self.tokens.clear()

    def _finish(self, _: int) -> Outcome:
        text_NAE = None if self.text_NAE is None else self.text_NAE.to(self.runtime.device)
        if text_NAE is not None and not self.classes:
            return Outcome(self.runtime.support_of_text(text_NAE))
        if self.runtime.supports_apart:
            features_STE = self._all_features()
            if not self.classes:
                return Outcome(features_STE)
            return Outcome(self.runtime.support_of(features_STE, self.classes, text_NAE))
        self.tokens = [torch.cat(self.tokens)]
        return Outcome(self.runtime.encode_support(self.tokens[0], self.classes, text_NAE))

    def _all_features(self) -> Tensor:
        """Put features that were known and new ones in the order of the task's clips."""
        if not self.known:
            return torch.cat(self.features)
        new = itertools.chain.from_iterable(self.features)
        known = (self.known.get(place) for place in range(len(self.classes)))
        return torch.stack([next(new) if one is None else one for one in known])


def ends(count: int, of_part: int) -> Iterator[tuple[int, int]]:
    """Cut so many things into parts; yield where each begins and ends."""
    yield from itertools.pairwise([*range(0, count, of_part), count])
