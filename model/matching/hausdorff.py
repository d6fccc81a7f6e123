"""Bi-MHM: the bidirectional mean Hausdorff metric, which knows no order of frames.

Source: HyRSM (model/papers/matching.md), with the sums over frames of the released code, which are
T times the means of the paper.

Dimensions: Q clips, N classes, T frames of a query, U frames of a prototype.
"""

from torch import Tensor, nn

from model.episode import ClassSet
from model.matching.frame_pairs import frame_distances


class BiMhm(nn.Module):
    """The negative sum of distances of frames to their nearest, of both clips."""

    bounded, reads_shots, per_task = False, False, False

    def is_initial(self) -> bool:
        """Tell that there is nothing to train."""
        return True

    def forward(self, query_QTE: Tensor, classes: ClassSet) -> Tensor:
        """Return video_QN, at most 0."""
        return -bi_mhm_distance(frame_distances(query_QTE, classes.prototype_NTE))


def bi_mhm_distance(distance_QNTU: Tensor) -> Tensor:
    """Sum the distances of frames to their nearest, of both clips [Q, N]."""
    return distance_QNTU.amin(dim=-1).sum(dim=-1) + distance_QNTU.amin(dim=-2).sum(dim=-1)
