"""Distil a frozen ViT into a shallower one: every token, at every depth, on the same patch grid.

Both see the same patches: all of them, or the same random part, which costs as much less.

Dimensions: B views, C channels, S pixels, L tokens (the class token first), K kept patch tokens,
D teacher width, E student width.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SCALE_FLOOR = 0.1  # share of the mean channel variance added to each channel's own


def embed(vit: Any, pixels_BCSS: Tensor, keep_BK: Tensor | None) -> Tensor:  # noqa: ANN401
    """Return the tokens that enter the first block, of all patches or of the kept ones."""
    tokens_BLD = vit.norm_pre(vit._pos_embed(vit.patch_embed(pixels_BCSS)))
    if keep_BK is None:
        return tokens_BLD
    index = (keep_BK + 1).unsqueeze(-1).expand(-1, -1, tokens_BLD.shape[-1])
    return torch.cat([tokens_BLD[:, :1], tokens_BLD.gather(1, index)], dim=1)


def matched_depths(student: int, teacher: int) -> tuple[int, ...]:
    """Return the teacher's depth that each student depth imitates, from 0 (embedded) to the end."""
    return tuple(round(depth * teacher / student) for depth in range(student + 1))


@torch.no_grad()
def teacher_states(
    vit: Any,  # noqa: ANN401
    pixels_BCSS: Tensor,
    keep_BK: Tensor | None,
    depths: Sequence[int],
) -> list[Tensor]:
    """Return the teacher's tokens at `depths`, then its normed output."""
    tokens = embed(vit, pixels_BCSS, keep_BK)
    every = [tokens]
    for block in vit.blocks:
        tokens = block(tokens)
        every.append(tokens)
    return [*(every[depth] for depth in depths), vit.norm(tokens)]


def measure_scales(states: Sequence[Tensor]) -> list[Tensor]:
    """Return what counts as a large error: for each state, the deviation [D] of every channel.

    Args:
        states: From `teacher_states`. Blocks are measured by what they add to the state before,
            the first and last state as they are.
    """
    first, *blocks, normed = [state.flatten(0, 1).float() for state in states]
    before = [first, *blocks[:-1]]
    added = [after - start for start, after in zip(before, blocks, strict=True)]
    spreads = [part.var(dim=0) for part in (first, *added, normed)]
    return [(spread + SCALE_FLOOR * spread.mean()).sqrt() for spread in spreads]


class Distiller(nn.Module):
    """A student with the projections into its teacher's space, which are thrown away afterwards.

    Args:
        vit: The student, a timm ViT without classifier. Where it is as wide as its teacher there
            are no projections, and it ends in the teacher's own space.
        scales: From `measure_scales`.
    """

    def __init__(self, vit: Any, scales: Sequence[Tensor]) -> None:  # noqa: ANN401
        super().__init__()
        self.vit = vit
        width = len(scales[0])
        self.heads = nn.ModuleList(
            nn.Identity() if vit.embed_dim == width else nn.Linear(vit.embed_dim, width)
            for _ in scales
        )
        self.scales = nn.ParameterList(nn.Parameter(s, requires_grad=False) for s in scales)

    def forward(
        self,
        pixels_BCSS: Tensor,
        keep_BK: Tensor | None,
        states: Sequence[Tensor],
        inner: float = 1.0,
    ) -> Tensor:
        """Return the loss: mean error over depths, and the angle of the class feature.

        Args:
            pixels_BCSS: Normalised views.
            keep_BK: Which patches are seen; None for all.
            states: From `teacher_states`, of the same patches.
            inner: Weight of every depth but the output. A student of fewer blocks cannot be equal
                at all depths, so that the output alone should count in the end.
        """
        tokens = embed(self.vit, pixels_BCSS, keep_BK)
        own = [tokens]
        for block in self.vit.blocks:
            tokens = block(tokens)
            own.append(tokens)
        own.append(self.vit.norm(tokens))
        projected = [head(state) for head, state in zip(self.heads, own, strict=True)]
        losses = [
            token_loss(state, target, scale)
            for state, target, scale in zip(projected, states, self.scales, strict=True)
        ]
        classes_BD, wanted_BD = projected[-1][:, 0].float(), states[-1][:, 0].float()
        angle_B = 1 - F.cosine_similarity(classes_BD, wanted_BD, dim=-1)
        *inside, output = losses
        weighed = (inner * torch.stack(inside).sum() + output) / (inner * len(inside) + 1)
        return weighed + angle_B.mean()


def token_loss(tokens_BLD: Tensor, target_BLD: Tensor, scale_D: Tensor) -> Tensor:
    """Return the smooth L1 error; the class token weighs as much as all patches together."""
    error_BLD = (tokens_BLD.float() - target_BLD.float()) / scale_D
    loss_BLD = F.smooth_l1_loss(error_BLD, torch.zeros_like(error_BLD), reduction="none")
    return loss_BLD[:, 0].mean() + loss_BLD[:, 1:].mean()
