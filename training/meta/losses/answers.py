"""Losses of the answers to an episode's queries.

Dimensions: Q queries, B = supports and queries, T frames, N classes, E feature width.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from training.meta.losses.output import EpisodeOutput


def query_cross_entropy(output: EpisodeOutput) -> Tensor:
    """Return the mean cross-entropy of the queries' answers: 0 or more."""
    return F.cross_entropy(output.logits_QN, output.wanted_Q, label_smoothing=output.smoothing)


def video_cross_entropy(output: EpisodeOutput) -> Tensor:
    """Return the mean cross-entropy of the video scores as they are, without text: 0 or more."""
    return F.cross_entropy(output.video_QN, output.wanted_Q, label_smoothing=output.smoothing)


def class_text(output: EpisodeOutput) -> Tensor:
    """Return the cross-entropy of clips' mean frames among the texts of the episode's classes.

    Source: MA-CLIP (model/papers/ma_clip.md, section 4).

    Returns:
        The mean of that over supports and that over queries: 0 or more; without text 0.
    """
    if output.text_NAE is None:
        return output.logits_QN.new_zeros(())
    clip_BE = F.normalize(output.features_BTE.float().mean(dim=1), dim=-1)
    text_NE = F.normalize(output.text_NAE.float().mean(dim=1), dim=-1)
    logits_BN = output.text_scale * clip_BE @ text_NE.T
    wanted_B = torch.tensor(output.classes_B, device=logits_BN.device)
    supports = len(wanted_B) - len(output.wanted_Q)
    parts = zip(logits_BN.tensor_split([supports]), wanted_B.tensor_split([supports]), strict=True)
    return torch.stack([F.cross_entropy(*part) for part in parts]).mean()


def consistency(output: EpisodeOutput) -> Tensor:
    """Return how the answers to two draws of each query differ: 0 or more."""
    return disagreement(output.logits_QN, output.again_QN)


def disagreement(logits_QN: Tensor, again_QN: Tensor) -> Tensor:
    """Return the mean of both Kullback-Leibler divergences, averaged over queries: 0 or more.

    Source: R-Drop (arXiv 2106.14448, equation 2).
    """
    one_QN, other_QN = logits_QN.log_softmax(dim=1), again_QN.log_softmax(dim=1)
    return ((one_QN.exp() - other_QN.exp()) * (one_QN - other_QN)).sum(dim=1).mean() / 2
