"""Cosine of frame means, and mean cosine of frame pairs (model/papers/matching.md).

Dimensions: Q clips, N classes, T frames of a query, U frames of a prototype, E feature width.
"""

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
