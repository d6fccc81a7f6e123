"""Bi-MHM: the bidirectional mean Hausdorff metric, which knows no order of frames.

Source: HyRSM (specs/methods-1, section 8.3), with the sums over frames of the released code, which
are T times the means of the paper.

Dimensions: Q clips, N classes, T frames of a query, U frames of a prototype, E feature width.
"""

from torch import Tensor

from model.matching.frame_pairs import frame_distances


def bi_mhm_scores(query_QTE: Tensor, prototype_NTE: Tensor) -> Tensor:
    """Compare each frame with the nearest of the other clip, in both directions.

    Args:
        query_QTE: Frame features of the queries.
        prototype_NTE: Mean frame features of each class's shots.

    Returns:
        video_QN, the negative distance.
    """
    return -bi_mhm_distance(frame_distances(query_QTE, prototype_NTE))


def bi_mhm_distance(distance_QNTU: Tensor) -> Tensor:
    """Sum the distances of frames to their nearest, of both clips [Q, N]."""
    return distance_QNTU.amin(dim=-1).sum(dim=-1) + distance_QNTU.amin(dim=-2).sum(dim=-1)
