"""How much the text of a task tells: asked of the task's own supports, whose classes are known.

A text that names the supports counts much, one that does not counts little. Source: none; the
figures are in training/experiments/text_trust.md.

Dimensions: Q queries, S supports, N classes, G weights that are tried.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

OCTAVES = (-6.0, 5.0)  # of tried weights, around the expected one
STEP = 0.5  # octaves


@dataclass(frozen=True, slots=True)
class TextTrust:
    """How much the text of classes tells.

    Args:
        level_N: Of a class's text score in any clip of the task.
        weight_N: Of what a text score exceeds its level by.
    """

    level_N: Tensor
    weight_N: Tensor


@torch.no_grad()
def text_trust(
    video_SN: Tensor, text_SN: Tensor, classes_S: Tensor, expected: float, doubt: float
) -> TextTrust:
    """Return the level of each class's text, and the weight of what exceeds it.

    Supports answer with softmax(video + weight * (text - level)); the weight is the mean of its
    logarithm after they answered.

    Args:
        video_SN: Logits of each support by video, made without it; 0 where nothing says any.
        text_SN: Text scores of the supports.
        classes_S: Their classes.
        expected: The weight before a support is asked.
        doubt: Its deviation then, octaves.
    """
    member_SN = F.one_hot(classes_S).to(text_SN.dtype)
    level_N = (member_SN / member_SN.sum(dim=0)).T.matmul(text_SN).mean(dim=0)
    above_SN = text_SN - level_N
    octaves_G = torch.arange(OCTAVES[0], OCTAVES[1] + STEP, STEP).to(text_SN)
    weights_G = expected * octaves_G.exp2()
    logits_GSN = video_SN + weights_G[:, None, None] * above_SN
    wanted_GS = classes_S.expand(len(weights_G), -1)
    lost_GS = F.cross_entropy(logits_GSN.mT, wanted_GS, reduction="none")
    likely_G = (-lost_GS.sum(dim=1) - (octaves_G / doubt).square() / 2).softmax(dim=0)
    weight = expected * (likely_G @ octaves_G).exp2()
    return TextTrust(level_N, weight.expand_as(level_N).contiguous())


def trusted(text_QN: Tensor, trust: TextTrust | None) -> Tensor:
    """Return text scores as they count."""
    return text_QN if trust is None else trust.weight_N * (text_QN - trust.level_N)


def joined_trust(trusts: Sequence[TextTrust | None]) -> TextTrust | None:
    """Return that of the classes of several tasks, in order; all have one, or none has."""
    known = [trust for trust in trusts if trust is not None]
    if not known:
        return None
    levels, weights = [one.level_N for one in known], [one.weight_N for one in known]
    return TextTrust(torch.cat(levels), torch.cat(weights))
