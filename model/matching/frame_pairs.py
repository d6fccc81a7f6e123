"""Distances of every frame of a query to every frame of a prototype (model/papers/matching.md).

Dimensions: Q clips, N classes, T frames of a query, U frames of a prototype, E feature width.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def frame_distances(query_QTE: Tensor, prototype_NUE: Tensor, eps: float = 0.0) -> Tensor:
    """Return distance_QNTU = 1 - cosine of every pair of frames, in [0, 2].

    Args:
        query_QTE: Frame features of the queries.
        prototype_NUE: Of the classes.
        eps: Added to the product of norms, as CLIP-FSAR does; 0 is the exact cosine.
    """
    query_QTE, prototype_NUE = query_QTE.float(), prototype_NUE.float()
    if not eps:
        query_QTE, prototype_NUE = (
            F.normalize(query_QTE, dim=-1),
            F.normalize(prototype_NUE, dim=-1),
        )
        return 1 - torch.einsum("qte,nue->qntu", query_QTE, prototype_NUE)
    product_QNTU = torch.einsum("qte,nue->qntu", query_QTE, prototype_NUE)
    norm_QT, norm_NU = query_QTE.norm(dim=-1), prototype_NUE.norm(dim=-1)
    return 1 - product_QNTU / (torch.einsum("qt,nu->qntu", norm_QT, norm_NU) + eps)
