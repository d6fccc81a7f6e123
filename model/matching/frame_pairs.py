"""Every frame of a query against every frame of a prototype (specs/methods-1, section 8.1 b).

Dimensions: Q clips, N classes, T frames of a query, U frames of a prototype, E feature width.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def frame_pair_scores(query_QTE: Tensor, prototype_NTE: Tensor) -> Tensor:
    """Average the cosines of all pairs of frames.

    The mean over pairs is the product of the means of unit frames, so no pair is ever computed.

    Args:
        query_QTE: Frame features of the queries.
        prototype_NTE: Mean frame features of each class's shots.

    Returns:
        video_QN in [-1, 1].
    """
    query_QE = F.normalize(query_QTE.float(), dim=-1).mean(dim=1)
    prototype_NE = F.normalize(prototype_NTE.float(), dim=-1).mean(dim=1)
    return query_QE @ prototype_NE.T


def frame_distances(query_QTE: Tensor, prototype_NUE: Tensor) -> Tensor:
    """Return distance_QNTU = 1 - cosine of every pair of frames, in [0, 2]."""
    query_QTE = F.normalize(query_QTE.float(), dim=-1)
    prototype_NUE = F.normalize(prototype_NUE.float(), dim=-1)
    return 1 - torch.einsum("qte,nue->qntu", query_QTE, prototype_NUE)
