"""A small causal video network: convolutions over a frame's cells, and over the frames before it.

Factorised (2+1)D convolutions (Tran et al., arXiv 1711.11248) that see no later frame, as in
MoViNets for streams (Kondratyuk et al., arXiv 2103.11511), in blocks of ConvNeXt's order (Liu et
al., arXiv 2201.03545): depthwise convolution, norm, two linear maps. A frame's features say what
was seen until then. Norms are of one cell each, so that nothing depends on a batch.

Dimensions: B clips, T frames, N = B * T, H W or L cells, C channels, S pixels, M map channels, E
feature width.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.config.towers import CausalConfig
from model.errors import MethodError
from model.slots import TransformerBlock

STEM, STRIDE = 7, 4  # pixels of the first convolution, and between two of its cells
KERNEL = 5  # cells of a side of the depthwise convolutions
RATIO = 3  # width inside a block / width of the block


class AlongTime(nn.Module):
    """A depthwise convolution over a frame and those before it; it starts as the frame alone.

    In front of the first frame stands the first frame again: a scene at rest.

    Args:
        width: C.
        span: Frames that it sees.
    """

    def __init__(self, width: int, span: int) -> None:
        super().__init__()
        weight = torch.zeros(span, width)
        weight[0] = 1
        self.weight = nn.Parameter(weight)  # the frame itself first, then back in time

    def forward(self, x_BTHWC: Tensor) -> Tensor:
        """Mix frames; the shape stays."""
        mixed = x_BTHWC * self.weight[0]
        for back in range(1, len(self.weight)):
            kept = max(x_BTHWC.shape[1] - back, 0)
            first = x_BTHWC[:, :1].expand(-1, x_BTHWC.shape[1] - kept, -1, -1, -1)
            earlier = torch.cat([first, x_BTHWC[:, :kept]], dim=1)
            mixed = mixed + earlier * self.weight[back]
        return mixed


class CausalBlock(nn.Module):
    """A residual block: along space, along time, then two linear maps; it starts as the identity.

    Args:
        width: C.
        span: Frames that it sees; 1 sees the frame alone.
    """

    def __init__(self, width: int, span: int) -> None:
        super().__init__()
        self.space = nn.Conv2d(width, width, KERNEL, padding=KERNEL // 2, groups=width)
        self.time = AlongTime(width, span) if span > 1 else None
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, RATIO * width)
        self.down = nn.Linear(RATIO * width, width)
        nn.init.zeros_(self.down.weight)
        nn.init.zeros_(self.down.bias)

    def forward(self, x_BTHWC: Tensor) -> Tensor:
        """Run the block; the shape stays."""
        x_NCHW = x_BTHWC.flatten(0, 1).permute(0, 3, 1, 2)  # channels last in memory
        y_BTHWC = self.space(x_NCHW).permute(0, 2, 3, 1).unflatten(0, x_BTHWC.shape[:2])
        if self.time is not None:
            y_BTHWC = self.time(y_BTHWC)
        return x_BTHWC + self.down(F.relu(self.up(self.norm(y_BTHWC))))


class Halve(nn.Module):
    """Join 2 x 2 cells in a linear map.

    Args:
        width: C before it.
        wider: C after it.
    """

    def __init__(self, width: int, wider: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.join = nn.Linear(4 * width, wider)

    def forward(self, x_BTHWC: Tensor) -> Tensor:
        """Halve height and width."""
        pairs = self.norm(x_BTHWC).unflatten(3, (-1, 2)).unflatten(2, (-1, 2))
        return self.join(pairs.transpose(3, 4).flatten(4))


class CausalNetwork(nn.Module):
    """The network.

    Args:
        config: Its sizes.
    """

    def __init__(self, config: CausalConfig) -> None:
        super().__init__()
        widths = config.widths
        self.stem = nn.Conv2d(3, widths[0], STEM, STRIDE, padding=STEM // 2)
        stages = []
        before: Sequence[int | None] = (None, *widths)
        shapes = zip(before, widths, config.depths, config.spans, strict=False)
        for narrow, width, depth, span in shapes:
            halve = [] if narrow is None else [Halve(narrow, width)]
            stages.append(nn.Sequential(*halve, *(CausalBlock(width, span) for _ in range(depth))))
        self.stages = nn.ModuleList(stages)
        self.norm = nn.LayerNorm(widths[-1])
        self.project = nn.Linear(widths[-1], config.maps)
        self.hidden = nn.Linear(config.maps, config.hidden)
        self.features = nn.Linear(config.hidden, config.features)

    def states(self, pixels_BTCHW: Tensor) -> list[Tensor]:
        """Return the cells [B, T, H, W, C] after each stage, and at last the map of M channels."""
        pixels = pixels_BTCHW.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        x_BTHWC = self.stem(pixels).permute(0, 2, 3, 1).unflatten(0, pixels_BTCHW.shape[:2])
        states = []
        for stage in self.stages:
            x_BTHWC = stage(x_BTHWC)
            states.append(x_BTHWC)
        return [*states, F.relu(self.project(self.norm(x_BTHWC)))]

    def read(self, map_BTHWM: Tensor) -> Tensor:
        """Return features_BTE of maps."""
        mean_BTM = map_BTHWM.mean(dim=(2, 3))
        features: Tensor = self.features(F.relu(self.hidden(mean_BTM)))
        return features

    def forward(self, pixels_BTCHW: Tensor) -> Tensor:
        """Return features_BTE."""
        return self.read(self.states(pixels_BTCHW)[-1])


class CausalTower(nn.Module):
    """The network as a backbone that sees a whole clip; nothing in it can be adapted.

    Args:
        config: Its sizes.
    """

    prefix_tokens = 0
    reads_class_token = False
    staged = False
    blocks: Sequence[TransformerBlock] = ()

    def __init__(self, config: CausalConfig) -> None:
        super().__init__()
        self.model: Any = CausalNetwork(config)
        self.size = config.size
        self.mean, self.std = config.mean, config.std
        self.width = self.features = config.features

    def instants(self, frames: int) -> int:
        """Return the features of a clip: one a frame.

        Raises:
            MethodError: There is no frame.
        """
        if frames < 1:
            raise MethodError(f"frames is {frames}; choose 1 or more.")
        return frames

    def clip(self, pixels_BTCHW: Tensor) -> Tensor:
        """Turn normalised pixels of whole clips into features_BTE."""
        features: Tensor = self.model(pixels_BTCHW)
        return features

    def cells(self, pixels_BTCHW: Tensor) -> Tensor:
        """Return the last map of each frame, cells_BTLM."""
        return self.model.states(pixels_BTCHW)[-1].flatten(2, 3)

    def read(self, cells_BTLM: Tensor) -> Tensor:
        """Return features_BTE of them."""
        features: Tensor = self.model.read(cells_BTLM[:, :, None])
        return features

    def head(self, features_N1E: Tensor) -> Tensor:
        """Return the features; the one token of an instant is its feature already."""
        return features_N1E[:, 0]
