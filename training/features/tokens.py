"""Tokens: the trunk's output of clips, from a cache, from memory, or computed when asked for.

Dimensions: B clips asked for, C clips of a set, T frames, L tokens, D token width.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from model.checkpoint import hash_tensors
from model.recognizer import Recognizer
from training.data.datasets import LabelledClip
from training.features.clip_views import read_frames
from training.features.frames import HeldFrames
from training.features.trunk_cache import open_trunk_cache, trains_trunk
from training.progress import progress


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
        recognizer = self.recognizer
        read = partial(
            read_frames,
            frames=recognizer.config.frames,
            size=recognizer.size,
            squash=recognizer.squash,
        )
        made = [recognizer.trunk(read(self.clips[clip])[None]) for clip in clips]
        return torch.cat(made)


class TrunkTokens:
    """Runs the trunk, as it is at the time, on frames that are held; gradients pass.

    Args:
        recognizer: Whose trunk.
        frames: Of the set.
    """

    def __init__(self, recognizer: Recognizer, frames: HeldFrames) -> None:
        self.recognizer, self.frames = recognizer, frames

    def tokens(self, clips: Sequence[int], draws: Sequence[int] | None = None) -> Tensor:
        """Return tokens [B, T, L, D], of all clips in one pass."""
        frames_BTSSC = self.frames.views(clips, draws).to(self.recognizer.device)
        return self.recognizer.video.trunk(frames_BTSSC)


class HeldTokens:
    """Tokens of all clips in memory, as another source gives them."""

    def __init__(self, source: TokenSource, clips: int) -> None:
        made = [source.tokens([clip]) for clip in progress(range(clips), desc="trunk", unit="clip")]
        self._held_CTLD = torch.cat(made)

    def tokens(self, clips: Sequence[int], draws: Sequence[int] | None = None) -> Tensor:
        """Return tokens of the plain views [B, T, L, D]."""
        assert draws is None
        return self._held_CTLD[list(clips)]


class TokenSources:
    """Opens the tokens of a split for any recogniser.

    Args:
        name: Of data set and split, for the folders of caches.
        clips: The split.
        cache: Where trunk caches lie; None holds tokens in memory.
        half: Whether to compute in bfloat16.
    """

    def __init__(
        self, name: str, clips: Sequence[LabelledClip], *, cache: Path | None, half: bool
    ) -> None:
        self.name, self.clips, self.cache, self.half = name, clips, cache, half
        self._opened: dict[str, TokenSource] = {}

    def of(self, recognizer: Recognizer) -> TokenSource:
        """Return a recogniser's tokens.

        Raises:
            InputError: a trunk cache cannot be used.
        """
        trunk = trunk_fingerprint(recognizer)
        if trunk not in self._opened:
            self._opened[trunk] = self._open(recognizer, trunk)
        return self._opened[trunk]

    def _open(self, recognizer: Recognizer, trunk: str) -> TokenSource:
        if self.cache is not None and not trains_trunk(recognizer):
            folder = self.cache / cache_name(self.name, trunk, half=self.half)
            return open_trunk_cache(folder, recognizer, self.clips, draws=0, half=self.half)
        decoded = DecodedTokens(recognizer, self.clips)
        if not recognizer.video.adapted:
            return decoded  # read once, for features
        device = recognizer.device.type
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=self.half):
            return HeldTokens(decoded, len(self.clips))


def cache_name(name: str, trunk: str, *, half: bool) -> str:
    """Name a trunk cache's folder by all that it depends on, so that different ones never meet."""
    return f"{name}-{trunk}-{'bf16' if half else 'fp32'}"


def trunk_fingerprint(recognizer: Recognizer) -> str:
    """Name what the trunk's output of a clip depends on: weights, blocks, frames, crop."""
    video = recognizer.video
    tensors = dict(video.tower.model.state_dict())
    if video.at_input and video.temporal_embedding is not None:
        tensors["temporal_embedding"] = video.temporal_embedding
    plain, frames = len(video.plain_blocks), recognizer.config.frames
    squashed = "" if recognizer.squash is None else f"-q{recognizer.squash}"
    return f"{hash_tensors(tensors)[:12]}-{plain}x{frames}{squashed}"


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
