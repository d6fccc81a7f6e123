"""The space that a student's features live in: the teacher's hidden layer, centred and turned.

The hidden layer is wide and much of it says the same. Its principal directions keep the angles
between clips in a fraction of the width.

Dimensions: C clips, B of a batch, H hidden width, E feature width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Space:
    """Where features live."""

    mean_H: Tensor
    basis_HE: Tensor  # orthonormal
    variance: float  # of a feature, all directions together

    def features(self, hidden_BH: Tensor) -> Tensor:
        """Return features_BE of the teacher."""
        return (hidden_BH - self.mean_H) @ self.basis_HE


def fit_space(hidden_CH: Tensor, width: int) -> Space:
    """Find the principal directions of hidden layers.

    Args:
        hidden_CH: Of many clips.
        width: E, less than there are clips.
    """
    mean_H = hidden_CH.mean(0)
    basis_HE = _directions((hidden_CH - mean_H).double(), width).float()
    features = (hidden_CH - mean_H) @ basis_HE
    return Space(
        mean_H=mean_H,
        basis_HE=basis_HE.contiguous(),
        variance=float(features.square().sum(1).mean()),
    )


def _directions(centred_CH: Tensor, width: int) -> Tensor:
    """Return the first principal directions [H, E], by the smaller of the two products."""
    if len(centred_CH) >= centred_CH.shape[1]:
        return torch.linalg.eigh(centred_CH.T @ centred_CH).eigenvectors.flip(1)[:, :width]
    shares_CE = torch.linalg.eigh(centred_CH @ centred_CH.T).eigenvectors.flip(1)[:, :width]
    return torch.nn.functional.normalize(centred_CH.T @ shares_CE, dim=0)
