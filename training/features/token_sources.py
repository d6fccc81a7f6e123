"""Tokens of one split for several recognisers: those that share a trunk share its output."""

from collections.abc import Sequence
from pathlib import Path

import torch

from model.checkpoint import hash_tensors
from model.recognizer import Recognizer
from training.data.datasets import LabelledClip
from training.features.tokens import DecodedTokens, HeldTokens, TokenSource
from training.features.trunk_cache import open_trunk_cache


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
        if self.cache is not None and not _trains_input(recognizer):
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
    """Name what the trunk's output of a clip depends on: weights, number of blocks, frames."""
    video = recognizer.video
    tensors = dict(video.tower.model.state_dict())
    if _trains_input(recognizer):
        assert video.temporal_embedding is not None
        tensors["temporal_embedding"] = video.temporal_embedding
    plain, frames = len(video.plain_blocks), recognizer.config.frames
    return f"{hash_tensors(tensors)[:12]}-{plain}x{frames}"


def _trains_input(recognizer: Recognizer) -> bool:
    return recognizer.video.at_input and recognizer.video.temporal_embedding is not None
