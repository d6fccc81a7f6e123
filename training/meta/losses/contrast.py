"""Contrast of clips and texts (ActionCLIP, M2-CLIP; model/papers/actionclip.md, section 4).

Dimensions: B clips, T frames, C classes of training, A texts of a class, E feature width.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.meta.losses.output import EpisodeOutput

AGREEMENT = 10.0  # of target logits, where two clips have one label


def multi_hot(logits_BB: Tensor, labels_B: Tensor) -> Tensor:
    """Return half of both Kullback-Leibler divergences to targets shared by equal labels.

    Args:
        logits_BB: Of each clip against the text of each clip.
        labels_B: Label of each clip.
    """
    return (one_way(logits_BB, labels_B) + one_way(logits_BB.T, labels_B)) / 2


def one_way(logits_BB: Tensor, labels_B: Tensor) -> Tensor:
    """Return the mean over rows of the divergence of a row to its targets: 0 or more."""
    agrees_BB = (labels_B[:, None] == labels_B).to(logits_BB.dtype)
    wanted_BB = (AGREEMENT * agrees_BB).softmax(dim=1)
    return F.kl_div(logits_BB.log_softmax(dim=1), wanted_BB, reduction="batchmean")


def clip_logits(output: EpisodeOutput, scale: Tensor | float) -> Tensor | None:
    """Return the scaled cosine of each clip with the text of each clip [B, B]."""
    text_BE = output.clip_text_BE()
    if text_BE is None:
        return None
    clip_BE = F.normalize(output.features_BTE.float().mean(dim=1), dim=-1)
    return scale * clip_BE @ F.normalize(text_BE.float(), dim=-1).T


def contrast(output: EpisodeOutput) -> Tensor:
    """Return the multi-hot contrast under the text head's scale; 0 without text."""
    logits_BB = clip_logits(output, output.text_scale)
    if logits_BB is None:
        return output.logits_QN.new_zeros(())
    return multi_hot(logits_BB, output.base_B)


class LearnedContrast(nn.Module):
    """The multi-hot contrast under a scale of its own, which is learned and starts at 100."""

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.full((1,), math.log(100)))

    def forward(self, output: EpisodeOutput) -> Tensor:
        """Return the contrast: 0 or more; 0 without text."""
        logits_BB = clip_logits(output, self.log_scale.exp())
        if logits_BB is None:
            return output.logits_QN.new_zeros(())
        return multi_hot(logits_BB, output.base_B)


def text_class(output: EpisodeOutput) -> Tensor:
    """Return the cross-entropy of each clip among the texts of all training classes: L_cmc.

    Source: M2-CLIP (model/papers/m2clip.md, section 5).
    """
    logits_BC = class_logits(output)
    if logits_BC is None:
        return output.logits_QN.new_zeros(())
    return F.cross_entropy(logits_BC, output.base_B)


def text_class_double(output: EpisodeOutput) -> Tensor:
    """Return L_cmc as released: of a softmax of a softmax, which has almost no gradient."""
    logits_BC = class_logits(output)
    if logits_BC is None:
        return output.logits_QN.new_zeros(())
    return F.cross_entropy(logits_BC.softmax(dim=1), output.base_B)


def class_logits(output: EpisodeOutput) -> Tensor | None:
    """Return the scaled cosine of each clip with each training class [B, C]."""
    text_CAE = output.base_text_CAE()
    if text_CAE is None:
        return None
    clip_BE = F.normalize(output.features_BTE.float().mean(dim=1), dim=-1)
    text_CE = F.normalize(text_CAE.float().mean(dim=1), dim=-1)
    return output.text_scale * clip_BE @ text_CE.T
