"""OTAM: the cheapest way through two clips in temporal order, by soft dynamic time warping.

Source: OTAM in Perrett's form (model/papers/matching.md). The recursion runs over
R = -smoothing * log(weight): the soft minimum of costs is the logarithm of a sum of weights, so
log-weights are kept, which neither overflow nor vanish at a small smoothing. The padded columns on
the left and right, which let a way skip leading and trailing rows, are summed in closed form.

Dimensions: Q clips, N classes, T frames of a query, U frames of a prototype.
"""

import math

import torch
from torch import Tensor, nn

from model.episode import ClassSet
from model.matching.frame_pairs import frame_distances


class Otam(nn.Module):
    """Soft alignment of queries with prototypes in temporal order, in both directions.

    Args:
        smoothing: Of the soft minimum (lambda), above 0; the smaller, the harder.
        eps: Added to the product of norms in cosines.
        one_direction: Align queries to prototypes alone, not prototypes to queries too.
    """

    bounded, reads_shots, per_task = False, False, False

    def __init__(self, smoothing: float, *, eps: float = 0.0, one_direction: bool = False) -> None:
        super().__init__()
        self.smoothing, self.eps, self.one_direction = smoothing, eps, one_direction

    def is_initial(self) -> bool:
        """Tell that there is nothing to train."""
        return True

    def forward(self, query_QTE: Tensor, classes: ClassSet) -> Tensor:
        """Return video_QN, the negative distance.

        A soft minimum lies below the minimum, so it may be above 0.
        """
        distance_QNTU = frame_distances(query_QTE, classes.prototype_NTE, self.eps)
        distance_QN = otam_distance(distance_QNTU, self.smoothing)
        if not self.one_direction:
            backward_QNUT = distance_QNTU.transpose(-1, -2)
            distance_QN = distance_QN + otam_distance(backward_QNUT, self.smoothing)
        return -distance_QN


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
