"""The space that a student's features live in: the teacher's hidden layer, centred and turned.

The hidden layer is wide and much of it says the same. Its principal directions keep the angles
between clips in a fraction of the width, and the teacher's classifier is a linear map of them, so
that the student is asked for logits through the teacher's own, frozen classifier.

Dimensions: C clips, B of a batch, H hidden width, E feature width, K classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from training.distil.teacher import Reading


@dataclass(frozen=True, slots=True)
class Space:
    """Where features live, and the teacher's classifier there."""

    mean_H: Tensor
    basis_HE: Tensor  # orthonormal
    classifier_KE: Tensor
    bias_K: Tensor
    variance: float  # of a feature, all directions together

    def features(self, hidden_BH: Tensor) -> Tensor:
        """Return features_BE of the teacher."""
        return (hidden_BH - self.mean_H) @ self.basis_HE

    def logits(self, features_BE: Tensor) -> Tensor:
        """Return what the teacher's classifier says of features."""
        return features_BE @ self.classifier_KE.T + self.bias_K


def fit_space(hidden_CH: Tensor, reading: Reading, width: int) -> Space:
    """Find the principal directions of hidden layers.

    Args:
        hidden_CH: Of many clips.
        reading: The teacher's last layers.
        width: E, less than there are clips.
    """
    mean_H = hidden_CH.mean(0)
    basis_HE = _directions((hidden_CH - mean_H).double(), width).float()
    features = (hidden_CH - mean_H) @ basis_HE
    return Space(
        mean_H=mean_H,
        basis_HE=basis_HE.contiguous(),
        classifier_KE=reading.logits_KH @ basis_HE,
        bias_K=reading.logits(mean_H[None])[0],
        variance=float(features.square().sum(1).mean()),
    )


def _directions(centred_CH: Tensor, width: int) -> Tensor:
    """Return the first principal directions [H, E], by the smaller of the two products."""
    if len(centred_CH) >= centred_CH.shape[1]:
        return torch.linalg.eigh(centred_CH.T @ centred_CH).eigenvectors.flip(1)[:, :width]
    shares_CE = torch.linalg.eigh(centred_CH @ centred_CH.T).eigenvectors.flip(1)[:, :width]
    return torch.nn.functional.normalize(centred_CH.T @ shares_CE, dim=0)
