"""ActionCLIP's heads without attention: mean, shift, LSTM (model/papers/actionclip.md, section 2).

Each gives one feature a clip, as one instant. Dimensions: B clips, T frames, E feature width.
"""

import torch
from torch import Tensor, nn


class MeanFrame(nn.Module):
    """The mean of a clip's frames (meanP).

    Args:
        features: E.
    """

    reads_levels, transductive, one_instant = 0, False, True

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = features

    def is_initial(self) -> bool:
        """Tell that there is nothing to train."""
        return True

    def forward(self, features_BTE: Tensor) -> Tensor:
        """Return one feature a clip, features_B1E."""
        return features_BTE.mean(dim=1, keepdim=True)


class FrameShift(nn.Module):
    """mean(f + convolution(f)), three taps along time, each channel by itself (Conv_1D).

    It starts as a shift: the first quarter of the channels takes the frame before, the last
    quarter the frame after. The release convolves an axis of frames and channels mixed up.

    Args:
        features: E.
    """

    reads_levels, transductive, one_instant = 0, False, True

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = features
        self.shift = nn.Conv1d(features, features, 3, padding=1, groups=features, bias=False)
        quarter = features // 4
        with torch.no_grad():
            self.shift.weight.zero_()
            self.shift.weight[:quarter, 0, 0] = 1
            self.shift.weight[quarter : features - quarter, 0, 1] = 1
            self.shift.weight[features - quarter :, 0, 2] = 1

    def is_initial(self) -> bool:
        """Tell that no start of it equals the backbone without it."""
        return False

    def forward(self, features_BTE: Tensor) -> Tensor:
        """Return one feature a clip, features_B1E."""
        shifted_BET = self.shift(features_BTE.transpose(1, 2))
        return (features_BTE + shifted_BET.transpose(1, 2)).mean(dim=1, keepdim=True)


class Lstm(nn.Module):
    """mean(f + LSTM(f)): one layer, forwards in time.

    Args:
        features: E.
    """

    reads_levels, transductive, one_instant = 0, False, True

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = features
        self.lstm = nn.LSTM(features, features, batch_first=True)

    def is_initial(self) -> bool:
        """Tell that no start of it equals the backbone without it."""
        return False

    def forward(self, features_BTE: Tensor) -> Tensor:
        """Return one feature a clip, features_B1E."""
        return (features_BTE + self.lstm(features_BTE)[0]).mean(dim=1, keepdim=True)
