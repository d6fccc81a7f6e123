"""What training adds to a cross-entropy.

Dimensions: B Q clips, N classes, A stages, T frames, E feature width.
"""

from collections.abc import Sequence
from operator import eq

import torch
from torch import Tensor
from torch.nn import functional as F

from model.config import MethodConfig
from model.matching.stages import align, stage_scores
from model.text import StageTexts


def stage_contrast(
    features_BTE: Tensor,
    classes_B: Sequence[int],
    text_NAE: Tensor,
    same_NNA: Tensor,
    config: MethodConfig,
    sharpness: float,
) -> Tensor:
    """Tell each stage of each clip from the same stage of the other classes, by its text.

    The cross-entropy of queries sees the mean over stages, and only of queries; this sees every
    stage of supports too.

    Args:
        features_BTE: Frame features of an episode's clips.
        classes_B: Class index of each.
        text_NAE: Stage features of the classes.
        same_NNA: From `same_stages`: classes whose text agrees are all right answers.
        config: How stages are scored.
        sharpness: Of the cosines.

    Returns:
        The mean cross-entropy, 0 or more.
    """
    cosine_BNA = stage_scores(align(features_BTE, config.align), text_NAE, config.stage_cosine)
    true_BNA = same_NNA.to(cosine_BNA.device)[list(classes_B)]
    log_share_BNA = (sharpness * cosine_BNA).log_softmax(dim=1)
    return -((log_share_BNA * true_BNA).sum(dim=1) / true_BNA.sum(dim=1)).mean()


def distance(features_BTE: Tensor, wanted_BTE: Tensor) -> Tensor:
    """Return the mean of 1 - cosine of frame features to what they should be: 0 to 2."""
    return 1 - F.cosine_similarity(features_BTE.float(), wanted_BTE.float(), dim=-1).mean()


def disagreement(logits_QN: Tensor, again_QN: Tensor) -> Tensor:
    """Return how two views of each query differ in what they answer, whatever is right.

    The mean of both Kullback-Leibler divergences (R-Drop, arXiv 2106.14448, equation 2), averaged
    over queries: 0 or more.
    """
    one_QN, other_QN = logits_QN.log_softmax(dim=1), again_QN.log_softmax(dim=1)
    return ((one_QN.exp() - other_QN.exp()) * (one_QN - other_QN)).sum(dim=1).mean() / 2


def same_stages(stages: Sequence[StageTexts]) -> Tensor:
    """Return same_NNA, 1 where a stage's text of two classes is the same, else 0."""
    return torch.tensor(
        [[list(map(eq, one, other)) for other in stages] for one in stages], dtype=torch.float
    )
