"""The loss that tells the stages of an action from each other by their text.

Dimensions: B clips, N classes, A stages, T frames, E feature width.
"""

from collections.abc import Sequence
from operator import eq

import torch
from torch import Tensor

from model.matching.stages import align, stage_scores
from model.text import StageTexts
from training.meta.losses.output import EpisodeOutput


def stage_contrast(output: EpisodeOutput) -> Tensor:
    """Tell each stage of each clip from the same stage of the other classes, by its text.

    The cross-entropy of queries sees the mean over stages, and only of queries; this loss sees
    every stage of supports too. Classes whose text agrees at a stage are both right answers there.

    Returns:
        The mean cross-entropy, 0 or more; 0 for an episode without text.
    """
    if output.text_NAE is None:
        return output.logits_QN.new_zeros(())
    config = output.config
    aligned_BUE = align(output.features_BTE, config.align)
    cosine_BNA = stage_scores(aligned_BUE, output.text_NAE, config.stage_cosine)
    same_NNA = same_stages(output.stages).to(cosine_BNA.device)
    true_BNA = same_NNA[list(output.classes_B)]
    log_share_BNA = (config.scale / output.temperature * cosine_BNA).log_softmax(dim=1)
    return -((log_share_BNA * true_BNA).sum(dim=1) / true_BNA.sum(dim=1)).mean()


def same_stages(stages: Sequence[StageTexts]) -> Tensor:
    """Return same_NNA: 1 where a stage's text of two classes is the same, else 0."""
    return torch.tensor(
        [[list(map(eq, one, other)) for other in stages] for one in stages], dtype=torch.float
    )
