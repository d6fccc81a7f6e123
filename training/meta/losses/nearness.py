"""Losses that hold features to what other weights make of the same clips.

Dimensions: B clips, T frames, E feature width.
"""

from torch import Tensor
from torch.nn import functional as F

from training.meta.losses.output import EpisodeOutput


def near_frozen(output: EpisodeOutput) -> Tensor:
    """Return the distance to the features of the frozen tower: 0 to 2."""
    return distance(output.features_BTE, output.frozen_BTE())


def near_start(output: EpisodeOutput) -> Tensor:
    """Return the distance to the features that the weights at the start made: 0 to 2."""
    return distance(output.features_BTE, output.start_BTE())


def distance(features_BTE: Tensor, wanted_BTE: Tensor) -> Tensor:
    """Return the mean of 1 - cosine of frame features to what they should be: 0 to 2."""
    return 1 - F.cosine_similarity(features_BTE.float(), wanted_BTE.float(), dim=-1).mean()
