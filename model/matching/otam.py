"""OTAM: the cheapest way through two clips in temporal order, by soft dynamic time warping.

Source: OTAM in Perrett's form (specs/methods-1, section 8.2). The recursion runs over
R = -smoothing * log(weight): the soft minimum of costs is the logarithm of a sum of weights, so
log-weights are kept, which neither overflow nor vanish at a small smoothing. The padded columns on
the left and right, which let a way skip leading and trailing rows, are summed in closed form.

Dimensions: Q clips, N classes, T frames of a query, U frames of a prototype, E feature width.
"""

import math

import torch
from torch import Tensor

from model.matching.frame_pairs import frame_distances


def otam_scores(query_QTE: Tensor, prototype_NTE: Tensor, *, smoothing: float) -> Tensor:
    """Align queries with prototypes in temporal order, in both directions.

    Args:
        query_QTE: Frame features of the queries.
        prototype_NTE: Mean frame features of each class's shots.
        smoothing: Of the soft minimum (lambda), above 0; the smaller, the harder.

    Returns:
        video_QN, the negative distance; a soft minimum lies below the minimum, so it may be
        positive.
    """
    distance_QNTU = frame_distances(query_QTE, prototype_NTE)
    forward_QN = otam_distance(distance_QNTU, smoothing)
    return -(forward_QN + otam_distance(distance_QNTU.transpose(-1, -2), smoothing))


def otam_distance(distance_QNTU: Tensor, smoothing: float) -> Tensor:
    """Return the cost of one direction [Q, N].

    Each of the U columns is passed once; a row is held or left for the next at each column.
    """
    step_QNTU = -distance_QNTU / smoothing
    weight_QNT = _first_column(step_QNTU[..., 0])
    for step_QNT in step_QNTU[..., 1:].unbind(dim=-1):
        moved_QNT = torch.logaddexp(weight_QNT[..., :-1], weight_QNT[..., 1:])
        weight_QNT = step_QNT + torch.cat([weight_QNT[..., :1], moved_QNT], dim=-1)
    # Two edges lead from each row into the right padding, from the last row only one.
    edges = [math.log(2)] * (weight_QNT.shape[-1] - 1) + [0.0]
    weight_QNT = weight_QNT + weight_QNT.new_tensor(edges)
    return -smoothing * torch.logsumexp(weight_QNT, dim=-1)


def _first_column(step_QNT: Tensor) -> Tensor:
    """Enter from the left padding, whose every cell has weight 1, or from the row above."""
    rows = list(step_QNT.unbind(dim=-1))
    for row in range(1, len(rows)):
        entered = torch.logaddexp(rows[row - 1], rows[row].new_tensor(math.log(2)))
        rows[row] = rows[row] + entered
    return torch.stack(rows, dim=-1)
