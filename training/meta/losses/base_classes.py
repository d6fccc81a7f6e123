"""Losses that tell the classes of training from each other, by their texts or by a classifier.

An episode asks among its own few classes; these ask among all that are trained on. What they learn
beside the method is part of training alone.

Dimensions: B clips, T frames, L tokens, D token width, C classes of training, A texts of a class,
E feature width.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.recognizer import Recognizer
from training.errors import InputError
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


def base_classifier(recognizer: Recognizer, labels: Sequence[str]) -> BaseClassifier:
    """Make the classifier of mean frames."""
    return BaseClassifier(recognizer.video.features, len(labels))


class VisualClassifier(nn.Module):
    """Cross-entropy of a linear classifier below the projection (M2-CLIP, section 2).

    The mean over frames comes first, the tower's own LayerNorm after; it stays as it is.

    Args:
        width: D.
        classes: C.
        pooled: Turns the tokens of the tower's last block into what it projects.
    """

    def __init__(self, width: int, classes: int, pooled: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.classify = nn.Linear(width, classes)
        nn.init.normal_(self.classify.weight, std=0.02)
        nn.init.zeros_(self.classify.bias)
        self._pooled = pooled  # the tower's, of which nothing is learned here

    def logits(self, top_BTLD: Tensor) -> Tensor:
        """Return logits_BC of the tokens behind the last block."""
        return self.classify(self.dropout(self._pooled(top_BTLD.float().mean(dim=1))))

    def forward(self, output: EpisodeOutput) -> Tensor:
        """Return the mean over supports and queries: 0 or more."""
        assert output.top_BTLD is not None  # the passes keep it where a recipe names this loss
        return F.cross_entropy(self.logits(output.top_BTLD), output.base_B)


def visual_classifier(recognizer: Recognizer, labels: Sequence[str]) -> VisualClassifier:
    """Make the classifier below the projection.

    Raises:
        InputError: No block is adapted, so that nothing is there to read.
    """
    video = recognizer.video
    if not video.adapted:
        raise InputError(
            f"The loss 'visual_class' reads the last adapted block, and {recognizer.name!r} has "
            "none; set its weight to 0."
        )
    return VisualClassifier(video.tower.width, len(labels), video.tower.pooled)
