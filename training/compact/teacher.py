"""The frozen teacher of the image stage: rounds of fresh views with its tokens of them.

A round is a function of seed and number, so that a run that was killed draws the same rounds again.

Dimensions: V views of a round, C channels, S pixels, K kept patch tokens, L tokens, D token width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from model.backbones.views.timm import TimmImageTower
from model.checkpoint import load_recognizer
from training.compact.distillation import teacher_states
from training.compact.pictures import FramePools
from training.errors import InputError
from training.features.augmentation import Augmentation, draw_views

PASS_VIEWS = 64  # of one pass of the teacher


def open_teacher(source: str, weights: Path | None) -> tuple[TimmImageTower, str]:
    """Load the frozen teacher and the fingerprint of its weights.

    Args:
        source: `timm:NAME`.
        weights: A file of its weights; the hub's if None.

    Raises:
        InputError: It is not a timm model.
        BackboneError: It cannot be loaded, or the weights do not fit.
    """
    if not source.startswith("timm:"):
        raise InputError(f"--teacher is {source!r}; a teacher is timm:NAME.")
    recognizer = load_recognizer(source, weights=weights)
    tower = recognizer.video.tower
    assert isinstance(tower, TimmImageTower)
    return tower, recognizer.fingerprint


@dataclass(frozen=True, slots=True)
class Round:
    """Views, which patches of them are seen, and the teacher's tokens of those patches."""

    pixels_VCSS: Tensor  # uint8
    keep_VK: Tensor | None  # None for all patches
    states_VLD: list[Tensor]  # bfloat16, one a depth


class Rounds:
    """Draws views, and runs the teacher on them.

    Args:
        teacher: A frozen tower.
        pools: Pictures to draw views from, on the device to compute on.
        depths: Of the teacher's tokens that are kept; see `matched_depths`.
        views: V.
        seed: Of all rounds.
        half: Whether to compute in bfloat16.
    """

    def __init__(
        self,
        teacher: TimmImageTower,
        pools: FramePools,
        depths: Sequence[int],
        *,
        views: int,
        seed: int,
        half: bool,
    ) -> None:
        self.teacher, self.pools, self.depths = teacher, pools, depths
        self.views, self.seed, self.half = views, seed, half
        self.device = pools.pictures_NHWC.device

    def draw(self, number: int, keep: float) -> Round:
        """Draw a round.

        Args:
            number: Of the round.
            keep: Share of the patch tokens that are seen, another choice for each view; 1 is all.
        """
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
        picks = self.pools.draw(self.views, generator)
        patches = int(self.teacher.model.patch_embed.num_patches)
        keep_VK = None
        if keep < 1:
            scores = torch.rand(self.views, patches, generator=generator)
            keep_VK = scores.argsort(dim=1)[:, : round(keep * patches)].to(self.device)
        pixels, states = [], []
        for index in torch.arange(self.views).split(PASS_VIEWS):
            views = draw_views(
                self.pools.pictures_NHWC, picks[index], self.teacher.size, generator, Augmentation()
            )
            kept = None if keep_VK is None else keep_VK[index.to(self.device)]
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
                made = teacher_states(self.teacher.model, self.normalised(views), kept, self.depths)
            pixels.append(views)
            states.append([state.bfloat16() for state in made])
        joined = [torch.cat(parts) for parts in zip(*states, strict=True)]
        return Round(torch.cat(pixels), keep_VK, joined)

    def normalised(self, views_BCSS: Tensor) -> Tensor:
        """Turn uint8 views into the pixels that the teacher expects."""
        mean, std = (
            torch.tensor(values, device=self.device).view(1, 3, 1, 1)
            for values in (self.teacher.mean, self.teacher.std)
        )
        return (views_BCSS.float() / 255 - mean) / std
