"""The video score: cosine of frame means (specs/methods-1, sections 5.3 and 6.6).

Dimensions: Q clips, N classes, T frames, E feature width.
"""

from torch import Tensor
from torch.nn import functional as F


def video_scores(query_QTE: Tensor, prototype_NTE: Tensor) -> Tensor:
    """Compare frame means by cosine.

    Args:
        query_QTE: Frame features of the queries.
        prototype_NTE: Mean frame features of each class's shots.

    Returns:
        video_QN in [-1, 1].
    """
    query_QE = F.normalize(query_QTE.float().mean(dim=1), dim=-1)
    prototype_NE = F.normalize(prototype_NTE.float().mean(dim=1), dim=-1)
    return query_QE @ prototype_NE.T
