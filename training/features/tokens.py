"""Where the trunk's output of clips comes from, when not from a trunk cache.

Dimensions: B clips asked for, C clips of a set, T frames, L tokens, D token width.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from model.recognizer import Recognizer
from training.data.datasets import LabelledClip, read_frames


class TokenSource(Protocol):
    """Gives the trunk's output of clips."""

    def tokens(self, clips: Sequence[int], draws: Sequence[int] | None = None) -> Tensor:
        """Return tokens [B, T, L, D]; draw 0 is the plain view, others are augmented."""


class DecodedTokens:
    """Decodes clips and runs the trunk each time it is asked.

    Args:
        recognizer: Whose trunk.
        clips: The set.
    """

    def __init__(self, recognizer: Recognizer, clips: Sequence[LabelledClip]) -> None:
        self.recognizer, self.clips = recognizer, clips

    def tokens(self, clips: Sequence[int], draws: Sequence[int] | None = None) -> Tensor:
        """Return tokens of the plain views [B, T, L, D]; there are no others."""
        assert draws is None
        config = self.recognizer.config
        made = [
            self.recognizer.trunk(
                read_frames(self.clips[clip], frames=config.frames, size=self.recognizer.size)[None]
            )
            for clip in clips
        ]
        return torch.cat(made)


class HeldTokens:
    """Tokens of all clips in memory, as another source gives them."""

    def __init__(self, source: TokenSource, clips: int) -> None:
        made = [source.tokens([clip]) for clip in tqdm(range(clips), desc="trunk", unit="clip")]
        self._held_CTLD = torch.cat(made)

    def tokens(self, clips: Sequence[int], draws: Sequence[int] | None = None) -> Tensor:
        """Return tokens of the plain views [B, T, L, D]."""
        assert draws is None
        return self._held_CTLD[list(clips)]


def looked_at(tokens: int, share: float, rng: np.random.Generator) -> Tensor:
    """Draw which tokens a pass looks at: the first, a class token, and a share of the others.

    An image tower that is shown half of the patches costs half (FLIP, arXiv 2212.00794).

    Args:
        tokens: L.
        share: In (0, 1].
        rng: Draws; 1 draws nothing.

    Returns:
        Their indices, in order.
    """
    kept = max(1, round(share * (tokens - 1)))
    if kept == tokens - 1:
        return torch.arange(tokens)
    patches = np.sort(rng.permutation(tokens - 1)[:kept]) + 1
    return torch.from_numpy(np.concatenate([[0], patches]))
