"""A small causal video network: convolutions over a frame's cells, and over the frames before it.

Inverted residuals (Sandler et al., arXiv 1801.04381) whose depthwise convolution is factorised into
space and time, and sees no later frame, as in MoViNets for streams (Kondratyuk et al., arXiv
2103.11511). A frame's features say what was seen until then. There are no norms, so that nothing
depends on a batch.

Dimensions: B clips, T frames, N = B * T, H W or L cells, C channels, D channels inside a block, S
pixels, M map channels, E feature width.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.config.towers import CausalBlockConfig, CausalConfig
from model.errors import MethodError
from model.slots import TransformerBlock

STEM, STRIDE = 3, 2  # pixels of the first convolution, and between two of its cells
RELU6_GAIN = 1.6  # keeps the spread of cells through a depthwise convolution, about


class AlongTime(nn.Module):
    """A depthwise convolution over a frame and those before it; nothing stands before the first.

    Args:
        width: D.
        span: Frames that it sees.
    """

    def __init__(self, width: int, span: int) -> None:
        super().__init__()
        weight = 0.05 * torch.randn(span, width)
        weight[0] += 1
        self.weight = nn.Parameter(weight)  # the frame itself first, then back in time
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x_BTHWD: Tensor) -> Tensor:
        """Mix frames; the shape stays."""
        mixed = x_BTHWD * self.weight[0] + self.bias
        for back in range(1, min(len(self.weight), x_BTHWD.shape[1])):
            earlier = x_BTHWD[:, :-back] * self.weight[back]
            mixed = mixed + F.pad(earlier, (0, 0, 0, 0, 0, 0, back, 0))
        return mixed


class CausalBlock(nn.Module):
    """A residual block: wider, along space, along time, and back.

    Args:
        width: C before it.
        config: Its sizes.
    """

    def __init__(self, width: int, config: CausalBlockConfig) -> None:
        super().__init__()
        self.config = config
        inner, kernel = config.inner, config.kernel
        self.up = nn.Conv2d(width, inner, 1)
        self.space = nn.Conv2d(inner, inner, kernel, config.stride, groups=inner)
        self.time = AlongTime(inner, config.span) if config.span > 1 else None
        self.down = nn.Conv2d(inner, config.width, 1)
        same = config.stride == 1 and config.width == width
        self.skip = None if same else nn.Conv2d(width, config.width, 1)
        nn.init.normal_(self.space.weight, std=RELU6_GAIN**0.5 / kernel)
        assert self.space.bias is not None
        nn.init.zeros_(self.space.bias)

    def inside(self, x_NCHW: Tensor, frames: int) -> Tensor:
        """Return what is inside [N, D, H, W], from 0 to 6, in front of the way back."""
        y_NDHW = padded(F.relu6(self.up(x_NCHW)), self.config.kernel, self.config.stride)
        y_NDHW = F.relu6(self.space(y_NDHW))
        if self.time is None:
            return y_NDHW
        y_BTHWD = self.time(y_NDHW.permute(0, 2, 3, 1).unflatten(0, (-1, frames)))
        return F.relu6(y_BTHWD).flatten(0, 1).permute(0, 3, 1, 2)

    def forward(self, x_NCHW: Tensor, frames: int) -> Tensor:
        """Run the block on clips of so many frames."""
        y_NCHW: Tensor = self.down(self.inside(x_NCHW, frames))
        if self.skip is None:
            return x_NCHW + y_NCHW
        if self.config.stride > 1:
            x_NCHW = F.avg_pool2d(x_NCHW, self.config.stride)
        return y_NCHW + self.skip(x_NCHW)


class CausalNetwork(nn.Module):
    """The network.

    Args:
        config: Its sizes.
    """

    def __init__(self, config: CausalConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.stem, *(block.width for block in config.blocks)]
        self.stem = nn.Conv2d(3, config.stem, STEM, STRIDE)
        self.blocks = nn.ModuleList(
            CausalBlock(width, block) for width, block in zip(widths, config.blocks, strict=False)
        )
        self.project = nn.Conv2d(widths[-1], config.maps, 1)
        self.hidden = nn.Linear(config.maps, config.hidden)
        self.features = nn.Linear(config.hidden, config.features)
        self.to(memory_format=torch.channels_last)

    def begin(self, pixels_NCSS: Tensor) -> Tensor:
        """Return the cells [N, C, H, W] of the first convolution."""
        return F.relu6(self.stem(padded(pixels_NCSS, STEM, STRIDE)))

    def end(self, x_NCHW: Tensor) -> Tensor:
        """Return the map [N, M, H, W] of the last block's cells."""
        return F.relu6(self.project(x_NCHW))

    def states(self, pixels_BTCSS: Tensor) -> list[Tensor]:
        """Return the cells [N, C, H, W] of the stem, of each block, and the map."""
        frames = pixels_BTCSS.shape[1]
        x_NCHW = pixels_BTCSS.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        states = [self.begin(x_NCHW)]
        for block in self.blocks:
            states.append(block(states[-1], frames))
        return [*states, self.end(states[-1])]

    def read(self, mean_M: Tensor) -> Tensor:
        """Return features [..., E] of mean maps [..., M]."""
        features: Tensor = self.features(F.relu(self.hidden(mean_M)))
        return features

    def forward(self, pixels_BTCSS: Tensor) -> Tensor:
        """Return features_BTE."""
        mean_NM = self.states(pixels_BTCSS)[-1].mean((-2, -1))
        return self.read(mean_NM).unflatten(0, pixels_BTCSS.shape[:2])


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
        return self.read(self.cells(pixels_BTCHW))

    def cells(self, pixels_BTCHW: Tensor) -> Tensor:
        """Return the last map of each frame, cells_BTLM."""
        map_NMHW = self.model.states(pixels_BTCHW)[-1]
        cells_BTLM: Tensor = (
            map_NMHW.flatten(2).transpose(1, 2).unflatten(0, pixels_BTCHW.shape[:2])
        )
        return cells_BTLM

    def read(self, cells_BTLM: Tensor) -> Tensor:
        """Return features_BTE of them."""
        features: Tensor = self.model.read(cells_BTLM.mean(dim=2))
        return features

    def head(self, features_N1E: Tensor) -> Tensor:
        """Return the features; the one token of an instant is its feature already."""
        return features_N1E[:, 0]


def padded(x_NCHW: Tensor, kernel: int, stride: int) -> Tensor:
    """Pad for a convolution that keeps size / stride; the odd cell goes to the right and below."""
    both = kernel - 1 if stride == 1 else max(kernel - stride, 0)
    less = both // 2
    return F.pad(x_NCHW, (less, both - less, less, both - less))
