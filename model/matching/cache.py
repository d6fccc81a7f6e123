"""Tip-Adapter's cache: supports are keys, their labels are values; nothing is trained.

Source: Tip-Adapter (model/papers/matching.md, section 10). Values are averaged over a class's
shots, where the release sums, so that a class with more shots wins nothing by their number.

Dimensions: Q clips, S support clips, N classes, T frames, E feature width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.episode import ClassSet


class Cache(nn.Module):
    """The mean affinity exp(-sharpness * (1 - cosine)) to a class's shots, in (0, 1].

    Args:
        sharpness: How fast affinity falls with distance (beta), above 0.
    """

    bounded, reads_shots, per_task = True, True, False

    def __init__(self, sharpness: float) -> None:
        super().__init__()
        self.sharpness = sharpness

    def is_initial(self) -> bool:
        """Tell that there is nothing to train."""
        return True

    def forward(self, query_QTE: Tensor, classes: ClassSet) -> Tensor:
        """Compare the mean frame of each query with that of each shot; returns video_QN."""
        counts = [len(shots_KTE) for shots_KTE in classes.shots]
        affinity_QS = torch.exp(
            -self.sharpness * (1 - unit_means(query_QTE) @ unit_means(torch.cat(classes.shots)).T)
        )
        means = [of_class.mean(dim=-1) for of_class in affinity_QS.split(counts, dim=-1)]
        return torch.stack(means, dim=-1)


def unit_means(frames_BTE: Tensor) -> Tensor:
    """Return the mean frame of each clip at length 1 [B, E]."""
    return F.normalize(frames_BTE.float().mean(dim=1), dim=-1)
