"""Losses of the answers to an episode's queries.

Dimensions: Q queries, N classes.
"""

from torch import Tensor
from torch.nn import functional as F

from training.meta.losses.output import EpisodeOutput


def query_cross_entropy(output: EpisodeOutput) -> Tensor:
    """Return the mean cross-entropy of the queries' answers: 0 or more."""
    return F.cross_entropy(output.logits_QN, output.wanted_Q, label_smoothing=output.smoothing)


def video_cross_entropy(output: EpisodeOutput) -> Tensor:
    """Return the mean cross-entropy of the video scores as they are, without text: 0 or more."""
    return F.cross_entropy(output.video_QN, output.wanted_Q, label_smoothing=output.smoothing)


def consistency(output: EpisodeOutput) -> Tensor:
    """Return how the answers to two draws of each query differ: 0 or more."""
    return disagreement(output.logits_QN, output.again_QN)


def disagreement(logits_QN: Tensor, again_QN: Tensor) -> Tensor:
    """Return the mean of both Kullback-Leibler divergences, averaged over queries: 0 or more.

    Source: R-Drop (arXiv 2106.14448, equation 2).
    """
    one_QN, other_QN = logits_QN.log_softmax(dim=1), again_QN.log_softmax(dim=1)
    return ((one_QN.exp() - other_QN.exp()) * (one_QN - other_QN)).sum(dim=1).mean() / 2
