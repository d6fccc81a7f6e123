"""Features are spread more evenly over their directions, in the last layer of the network.

Directions in which all clips differ are strong in a distilled space and hide those that tell labels
apart. Dividing by a power of the deviation (shrunk whitening) costs nothing: it is a part of the
last linear layer. The weakest direction gives its place to a constant, so that cosines, which are
factors of a score, are positive.

Dimensions: C clips, E feature width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.distil.teaching.recipe import SpreadRecipe


@dataclass(frozen=True, slots=True)
class Spread:
    """An affine map of features."""

    weight_EE: Tensor
    bias_E: Tensor

    def __call__(self, features_XE: Tensor) -> Tensor:
        """Map features [..., E]."""
        return features_XE @ self.weight_EE.T + self.bias_E


def fit_spread(features_CE: Tensor, recipe: SpreadRecipe) -> Spread:
    """Find the map by the features of many clips.

    Args:
        features_CE: Mean feature of each clip, more clips than E.
        recipe: How even they become.
    """
    mean_E = features_CE.mean(0)
    centred_CE = (features_CE - mean_E).double()
    variance_E, directions_EE = torch.linalg.eigh(centred_CE.T @ centred_CE / len(centred_CE))
    strength_E = (variance_E + recipe.floor * variance_E.max()) ** (-recipe.power / 2)
    weight_EE = (directions_EE * strength_E).T
    length = (centred_CE @ weight_EE[1:].T).square().sum(dim=1).mean().sqrt()
    weight_EE = (weight_EE / length).float()
    bias_E = -weight_EE @ mean_E
    weight_EE[0], bias_E[0] = 0, recipe.common  # of the weakest direction
    return Spread(weight_EE, bias_E)


@torch.no_grad()
def fold(layer: nn.Linear, spread: Spread) -> None:
    """Put a map behind a layer into the layer."""
    layer.bias.copy_(spread(layer.bias))
    layer.weight.copy_(spread.weight_EE @ layer.weight)
