"""Cosine of frame means, and mean cosine of frame pairs (model/papers/matching.md).

And, whatever the matcher is, how near a query is to a class: the cosine of their mean frames after
a centre is subtracted from both, which is the evidence that the query is one of the classes.

Dimensions: Q clips, K shots, N classes, T frames of a query, U frames of a prototype, E feature
width.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.episode import ClassSet


class CosineOfMeans(nn.Module):
    """Cosine of the mean frame of the query and of the prototype, in [-1, 1]."""

    bounded, reads_shots, per_task = True, False, False

    def is_initial(self) -> bool:
        """Tell that there is nothing to train."""
        return True

    def forward(self, query_QTE: Tensor, classes: ClassSet) -> Tensor:
        """Return video_QN."""
        query_QE = F.normalize(query_QTE.float().mean(dim=1), dim=-1)
        prototype_NE = F.normalize(classes.prototype_NTE.float().mean(dim=1), dim=-1)
        return query_QE @ prototype_NE.T


class FramePairs(nn.Module):
    """Mean cosine over all pairs of a query frame and a prototype frame, in [-1, 1].

    The mean over pairs is the product of the means of unit frames, so no pair is ever computed.
    """

    bounded, reads_shots, per_task = True, False, False

    def is_initial(self) -> bool:
        """Tell that there is nothing to train."""
        return True

    def forward(self, query_QTE: Tensor, classes: ClassSet) -> Tensor:
        """Return video_QN."""
        query_QE = F.normalize(query_QTE.float(), dim=-1).mean(dim=1)
        prototype_NE = F.normalize(classes.prototype_NTE.float(), dim=-1).mean(dim=1)
        return query_QE @ prototype_NE.T


class Centring(nn.Module):
    """Subtracts the mean feature, where there is one.

    Args:
        mean_E: Mean feature of the base classes; None takes the mean of a task's own classes.
        of_scores: Whether matchers compare what is left after the mean, too.
    """

    mean_E: Tensor | None

    def __init__(self, mean_E: Sequence[float] | None = None, *, of_scores: bool = False) -> None:
        super().__init__()
        self.of_scores = of_scores
        mean = None if mean_E is None else torch.tensor(mean_E, dtype=torch.float32)
        self.register_buffer("mean_E", mean, persistent=False)

    def classes(self, classes: ClassSet) -> ClassSet:
        """Return the classes of one task as queries meet them."""
        if self.of_scores and self.mean_E is not None:
            mean_E = self.mean_E
            return replace(
                classes,
                prototype_NTE=classes.prototype_NTE - mean_E,
                shots=tuple(shots_KTE - mean_E for shots_KTE in classes.shots),
                centre_NE=torch.zeros_like(classes.prototype_NTE[:, 0]),
            )
        pooled_NE = classes.prototype_NTE.float().mean(dim=1)
        centre_E = pooled_NE.mean(dim=0) if self.mean_E is None else self.mean_E
        return replace(classes, centre_NE=centre_E.expand_as(pooled_NE).contiguous())

    def queries(self, query_QTE: Tensor) -> Tensor:
        """Return queries as the classes are."""
        if self.of_scores and self.mean_E is not None:
            return query_QTE - self.mean_E
        return query_QTE


@torch.no_grad()
def nearness(query_QTE: Tensor, classes: ClassSet) -> Tensor:
    """Compare queries with classes, each class after its own centre.

    A product of differences is taken apart, so that tasks with centres of their own are compared
    at once; in float64, because the parts are large beside the difference.

    Returns:
        near_QN, cosines.
    """
    query_QE = query_QTE.double().mean(dim=1)
    if classes.centre_NE is None:
        centre_NE = torch.zeros_like(classes.prototype_NTE[:, 0], dtype=torch.float64)
    else:
        centre_NE = classes.centre_NE.double()
    away_NE = classes.prototype_NTE.double().mean(dim=1) - centre_NE
    away_NE = F.normalize(away_NE, dim=-1)
    along_QN = query_QE @ away_NE.T - (centre_NE * away_NE).sum(dim=-1)
    square_QN = (
        query_QE.square().sum(dim=-1, keepdim=True)
        - 2 * query_QE @ centre_NE.T
        + centre_NE.square().sum(dim=-1)
    )
    return (along_QN * square_QN.clamp(min=1e-12).rsqrt()).clamp(-1, 1).float()
