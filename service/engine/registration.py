"""The supports of one task on their way through the device, slice by slice.

Dimensions: S support clips, N classes, A stages, T frames, H W pixels, C colours, L tokens, D
width, E feature width.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor

from model.episode import EncodedSupport
from service.engine.device import Outcome, Step
from service.engine.fair_queue import Kind
from service.engine.runtimes.protocol import Runtime

Progress = Callable[[int], None]


def silent(_: int) -> None:
    """Ignore progress."""


@dataclass(slots=True)
class Registration:
    """What is known of a task's supports so far.

    Args:
        runtime: Encodes them.
        frames_STHWC: RGB uint8.
        classes: Class index of each clip.
        text_NAE: Or None to score by video alone.
        progress: Told the number of clips done.
    """

    runtime: Runtime
    frames_STHWC: np.ndarray
    classes: Sequence[int]
    text_NAE: Tensor | None
    progress: Progress
    tokens: list[Tensor] = field(default_factory=list)

    def steps(
        self,
        slice_clips: int,
        *,
        kind: Kind,
        tenant: str,
        deadline: float | None,
        done: "asyncio.Future[EncodedSupport]",
    ) -> list[Step]:
        """Cut the work into steps; the last one settles `done`."""
        clips = len(self.frames_STHWC)
        starts = range(0, clips, slice_clips)
        return [
            Step(
                kind=kind,
                frames=(min(start + slice_clips, clips) - start) * self.runtime.config.frames,
                tenant=tenant,
                deadline=deadline,
                done=done,
                run=partial(self._slice, start, min(start + slice_clips, clips)),
                timed=start + slice_clips < clips or len(starts) == 1,
            )
            for start in starts
        ]

    def _slice(self, start: int, stop: int, parts: int) -> Outcome | None:
        if sum(map(len, self.tokens)) <= start:  # else the slice is done, and what followed failed
            frames_BTHWC = self.frames_STHWC[start:stop]
            sections = [part for part in np.array_split(frames_BTHWC, parts) if len(part)]
            self.tokens.append(torch.cat([self.runtime.trunk(part) for part in sections]))
            self.progress(stop)
        if stop < len(self.frames_STHWC):
            return None
        text_NAE = None if self.text_NAE is None else self.text_NAE.to(self.runtime.device)
        self.tokens = [torch.cat(self.tokens)]
        return Outcome(self.runtime.encode_support(self.tokens[0], self.classes, text_NAE))
