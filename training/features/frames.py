"""Frames of clips, decoded once and held in memory while they fit.

Dimensions: B clips, T frames, S pixels, C colours.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from training.data.datasets import LabelledClip
from training.features.clip_views import ClipAugmentation, read_view

HELD_BYTES = 2 << 30  # of decoded frames; clips beyond them are decoded each time


class HeldFrames:
    """The plain view of each clip, and augmentation draws of it.

    Args:
        clips: The set.
        frames: T.
        size: S.
        squash: Side that whole frames are squashed to before the crop; None keeps their shape.
        seed: Of the draws.
        augmentation: How strongly draws differ.
    """

    def __init__(
        self,
        clips: Sequence[LabelledClip],
        *,
        frames: int,
        size: int,
        squash: int | None = None,
        seed: int = 0,
        augmentation: ClipAugmentation = ClipAugmentation(),  # noqa: B008  frozen
    ) -> None:
        self.clips, self.frames = clips, frames
        self.size, self.squash = size, squash
        self.seed, self.augmentation = seed, augmentation
        self._held: dict[tuple[int, int], Tensor] = {}
        self._bytes = 0

    def views(self, clips: Sequence[int], draws: Sequence[int] | None = None) -> Tensor:
        """Return frames [B, T, S, S, C], uint8; draw 0 is the plain view, others are augmented.

        Raises:
            ClipError: A clip cannot be read.
        """
        chosen = [0] * len(clips) if draws is None else draws
        return torch.stack([self._view(*each) for each in zip(clips, chosen, strict=True)])

    def _view(self, clip: int, draw: int) -> Tensor:
        if (held := self._held.get((clip, draw))) is not None:
            return held
        view = read_view(
            self.clips[clip],
            frames=self.frames,
            size=self.size,
            squash=self.squash,
            draw=draw,
            seed=self.seed,
            augmentation=self.augmentation,
        )
        view_TSSC = torch.from_numpy(view)
        if self._bytes + view_TSSC.nbytes <= HELD_BYTES:
            self._held[clip, draw] = view_TSSC
            self._bytes += view_TSSC.nbytes
        return view_TSSC
