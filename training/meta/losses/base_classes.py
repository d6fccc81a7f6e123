"""Losses that tell the classes of training from each other, by their texts or by a classifier.

An episode asks among its own few classes; these ask among all that are trained on. What they learn
beside the method is part of training alone.

Dimensions: B clips, T frames, C classes of training, A texts of a class, E feature width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.meta.losses.output import EpisodeOutput

EPS = 0.01  # added to the product of norms, as released


def global_class(output: EpisodeOutput) -> Tensor:
    """Return the cross-entropy of each clip's mean frame among the texts of all training classes.

    Source: CLIP-FSAR (model/papers/clip_fsar.md, section 4).

    Returns:
        0 or more; 0 where a class of training has no text.
    """
    text_CAE = output.base_text_CAE()
    if text_CAE is None:
        return output.logits_QN.new_zeros(())
    clip_BE = output.features_BTE.float().mean(dim=1)
    text_CE = text_CAE.float().mean(dim=1)
    norms_BC = torch.outer(clip_BE.norm(dim=1), text_CE.norm(dim=1))
    cosine_BC = clip_BE @ text_CE.T / (norms_BC + EPS)
    return F.cross_entropy(output.text_scale * cosine_BC, output.base_B)


class BaseClassifier(nn.Module):
    """Cross-entropy of a linear classifier of mean frames over all training classes (D2ST).

    Args:
        features: E.
        classes: C.
    """

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.classify = nn.Linear(features, classes)

    def forward(self, output: EpisodeOutput) -> Tensor:
        """Return the mean over supports and queries: 0 or more."""
        logits_BC = self.classify(output.features_BTE.float().mean(dim=1))
        return F.cross_entropy(logits_BC, output.base_B)
