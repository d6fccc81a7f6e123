"""A residual convolution along time: M2-CLIP's t_adapter, and TED's branch along time.

Source: model/papers/m2clip.md. Dimensions: B clips, T frames, E feature width, A inner width.
"""

import torch
from torch import Tensor, nn


class TemporalConvolution(nn.Module):
    """f + up(convolution(down(f))): each channel along three frames. Starts as the identity.

    Args:
        features: E.
        ratio: A as a fraction of E.
    """

    reads_levels, transductive = 0, False

    def __init__(self, features: int, ratio: float) -> None:
        super().__init__()
        self.features = features
        hidden = int(features * ratio)
        self.down = nn.Linear(features, hidden)
        self.along = nn.Conv1d(hidden, hidden, 3, padding=1, groups=hidden)
        self.up = nn.Linear(hidden, features)
        for bias in (self.down.bias, self.along.bias, self.up.bias):
            assert bias is not None
            nn.init.zeros_(bias)
        nn.init.zeros_(self.along.weight)

    def is_initial(self) -> bool:
        """Tell whether it is the identity, as before training."""
        assert self.along.bias is not None
        moved = (self.along.weight, self.along.bias, self.up.bias)
        return not any(torch.any(tensor) for tensor in moved)

    def forward(self, features_BTE: Tensor) -> Tensor:
        """Return features_BTE of clips, each by itself."""
        along_BAT = self.along(self.down(features_BTE).transpose(1, 2))
        return features_BTE + self.up(along_BAT.transpose(1, 2))
