"""The trunk's output of every clip and augmentation draw, computed once.

Training and evaluation then run the adapted blocks alone. Tokens are kept in half precision and
mapped into memory; a cache belongs to one backbone, one preprocessing and one list of clips.

Dimensions: C clips, B rows asked for, T frames, L tokens, D token width.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.checkpoint import hash_tensors
from model.config.method import TUNES_IMAGE
from model.recognizer import Recognizer
from training.data.datasets import LabelledClip
from training.data.local_video import reader_name
from training.errors import InputError
from training.features.clip_views import VIEW_RULE, ClipAugmentation, hash_clips
from training.features.token_files import TokenFolder, gigabytes
from training.features.trunk_passes import TrunkPasses

LATER_FIELDS = ("max_area", "hue", "each_frame", "of_supports")  # of `ClipAugmentation`


class TrunkCache:
    """Tokens of clips, mapped into memory.

    Args:
        views: One array [C, T, L, D] a view: draw 0, the plain view, then the augmentation draws.
    """

    def __init__(self, views: Sequence[NDArray[np.float16]]) -> None:
        self._views = [np.asarray(view) for view in views]
        self.clips = len(self._views[0])
        self.draws = len(views) - 1  # besides draw 0
        self.shape_TLD = tuple(self._views[0].shape[1:])

    def tokens(self, clips: Sequence[int], draws: Sequence[int] | None = None) -> Tensor:
        """Copy rows out of the cache, each once.

        Args:
            clips: Places in the list of clips.
            draws: Which view of each, 0 to `self.draws`; None is draw 0 for all.

        Returns:
            tokens_BTLD: float16, on the CPU; the output of `Recognizer.trunk`, rounded.
        """
        tokens_BTLD = torch.empty((len(clips), *self.shape_TLD), dtype=torch.float16)
        rows = tokens_BTLD.numpy()
        chosen = [0] * len(clips) if draws is None else draws
        for row, (clip, draw) in enumerate(zip(clips, chosen, strict=True)):
            rows[row] = self._views[draw][clip]
        return tokens_BTLD


def open_trunk_cache(
    folder: Path,
    recognizer: Recognizer,
    clips: Sequence[LabelledClip],
    *,
    draws: int,
    half: bool,
    seed: int = 0,
    augmentation: ClipAugmentation = ClipAugmentation(),  # noqa: B008  frozen
    tell: Callable[[str], None] = lambda line: print(line, file=sys.stderr),
) -> TrunkCache:
    """Open a cache, building first what is missing of it; goes on where a killed process stopped.

    Args:
        folder: Of the cache; made when it does not exist.
        recognizer: Whose trunk; adapters do not matter.
        clips: The list of clips; labels do not matter.
        draws: Augmentation draws of each clip besides the plain view; may grow later.
        half: Whether to compute in bfloat16.
        seed: Of the draws.
        augmentation: How strongly draws differ.
        tell: Takes a line for people before anything is written.

    Raises:
        InputError: The cache is torn, foreign or being built by another process, a clip cannot be
            read, the disk is full, tokens exceed float16, or the trunk is trained.
    """
    _check(recognizer, len(clips), draws)
    origin = _origin(recognizer, clips, half=half)
    drawn = {"seed": seed, "reader": reader_name(), **_strength(augmentation)}
    files = TokenFolder(folder, (len(clips), *recognizer.video.token_shape()), origin, drawn)
    files.check(draws)
    missing = [draw for draw in range(draws + 1) if not files.is_complete(draw)]
    if missing:
        files.check_space(missing)
        tell(_announcement(files, draws, len(missing)))
        with files.claim(draws):
            passes = TrunkPasses(recognizer, clips, half=half, seed=seed, augmentation=augmentation)
            passes.fill(files.parts(draw for draw in missing if not files.is_complete(draw)))
    return TrunkCache([files.rows(draw) for draw in range(draws + 1)])


def _strength(augmentation: ClipAugmentation) -> dict[str, float]:
    """Return how strong draws are; a field that came later counts where it is used."""
    unused = asdict(ClipAugmentation())
    held = asdict(augmentation)
    return {n: v for n, v in held.items() if n not in LATER_FIELDS or v != unused[n]}


def _announcement(files: TokenFolder, draws: int, missing: int) -> str:
    size, new = (gigabytes(files.draw_bytes * count) for count in (draws + 1, missing))
    return (
        f"trunk cache: {size} for {files.shape[0]} clips with {draws} draws each, {new} of it to "
        f"be made, in {files.folder}"
    )


def _check(recognizer: Recognizer, clips: int, draws: int) -> None:
    if trains_trunk(recognizer):
        remedy = "tune 'adapters'" if recognizer.config.tune in TUNES_IMAGE else "'first_adapted'"
        raise InputError(
            "What is below the adapted blocks is trained (temporal_embedding 'input' or tune "
            f"{recognizer.config.tune!r}), so that their input changes; use {remedy}, or no trunk "
            "cache."
        )
    if not clips or draws < 0:
        raise InputError(
            f"A trunk cache of {clips} clips and {draws} draws cannot be made; give one clip or "
            "more, and no draws or more."
        )


def trains_trunk(recognizer: Recognizer) -> bool:
    """Tell whether the trunk's output changes while the recogniser learns."""
    video = recognizer.video
    at_input = video.at_input and video.temporal_embedding is not None
    return at_input or any(p.requires_grad for p in video.tower.model.parameters())


def _origin(recognizer: Recognizer, clips: Sequence[LabelledClip], *, half: bool) -> dict[str, Any]:
    """Name all that the tokens of draw 0 follow from."""
    tower = recognizer.video.tower
    squashed = {} if recognizer.squash is None else {"squash": recognizer.squash}
    return {
        "backbone weights": hash_tensors(tower.model.state_dict()),
        "number of frozen blocks": len(recognizer.video.plain_blocks),
        "frames": recognizer.config.frames,
        "size": recognizer.size,
        **squashed,
        "mean": list(tower.mean),
        "std": list(tower.std),
        "view rule": VIEW_RULE,
        "precision": "bfloat16" if half else "float32",
        "clip list": hash_clips(clips),
    }
