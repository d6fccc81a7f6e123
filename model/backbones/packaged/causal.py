"""A small causal video network: convolutions over a frame's cells, and over the frames before it.

Inverted residuals (Sandler et al., arXiv 1801.04381) whose depthwise convolution is factorised into
space and time, and sees no later frame, as in MoViNets for streams (Kondratyuk et al., arXiv
2103.11511). A frame's features say what was seen until then. There are no norms, so that nothing
depends on a batch.

Dimensions: B clips, T frames, N = B * T, H W or L cells, C channels, D channels inside a block, S
pixels, M map channels, E feature width.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.config.towers import CausalBlockConfig, CausalConfig
from model.errors import MethodError
from model.slots import TransformerBlock

STEM, STRIDE = 3, 2  # pixels of the first convolution, and between two of its cells
FEW = 16  # channels
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
        mixed = torch.addcmul(self.bias, x_BTHWD, self.weight[0])
        for back in range(1, min(len(self.weight), x_BTHWD.shape[1])):
            mixed[:, back:].addcmul_(x_BTHWD[:, :-back], self.weight[back])
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

    def frame(self, x_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Do what is each frame's own: return what is inside, and what goes past that."""
        y_NDHW = F.relu6(self.up(x_NCHW), inplace=True)
        y_NDHW = F.relu6(along_space(self.space, y_NDHW, self.config.stride), inplace=True)
        if self.skip is None:
            return y_NDHW, x_NCHW
        return y_NDHW, self.skip(averaged(x_NCHW, self.config.stride))

    def mixed(self, y_NDHW: Tensor, frames: int) -> Tensor:
        """Mix along time what `frame` says is inside; from 0 to 6, in front of the way back."""
        if self.time is None:
            return y_NDHW
        y_BTHWD = self.time(y_NDHW.permute(0, 2, 3, 1).unflatten(0, (-1, frames)))
        return F.relu6(y_BTHWD, inplace=True).flatten(0, 1).permute(0, 3, 1, 2)

    def clip(self, y_NDHW: Tensor, past_NCHW: Tensor, frames: int) -> Tensor:
        """Do what is left for clips of so many frames."""
        out_NCHW: Tensor = self.down(self.mixed(y_NDHW, frames))
        return out_NCHW.add_(past_NCHW)

    def forward(self, x_NCHW: Tensor, frames: int) -> Tensor:
        """Run the block on clips of so many frames."""
        return self.clip(*self.frame(x_NCHW), frames)


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

    @property
    def own(self) -> int:
        """How many blocks, from the first, let a frame see no other."""
        spans = [block.span for block in self.config.blocks]
        return next((place for place, span in enumerate(spans) if span > 1), len(spans))

    def begin(self, pixels_NCSS: Tensor) -> Tensor:
        """Return the cells [N, C, H, W] of the first convolution."""
        return F.relu6(along_space(self.stem, pixels_NCSS, STRIDE), inplace=True)

    def end(self, x_NCHW: Tensor) -> Tensor:
        """Return the map [N, M, H, W] of the last block's cells."""
        return F.relu6(self.project(x_NCHW), inplace=True)

    def states(self, pixels_BTCSS: Tensor) -> list[Tensor]:
        """Return the cells [N, C, H, W] of the stem, of each block, and the map."""
        frames = pixels_BTCSS.shape[1]
        x_NCHW = pixels_BTCSS.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        states = [self.begin(x_NCHW)]
        for block in self.blocks:
            states.append(block(states[-1], frames))
        return [*states, self.end(states[-1])]

    def apart(self, pixels_NCSS: Tensor) -> Tensor:
        """Do what is each frame's own; return cells_NHWD in front of the first look along time.

        They are what is inside of that block and, behind it in D, what goes past.
        """
        x_NCHW = self.begin(pixels_NCSS.contiguous(memory_format=torch.channels_last))
        blocks = cast(Sequence[CausalBlock], self.blocks)
        for block in blocks[: self.own]:
            x_NCHW = block(x_NCHW, 1)
        for block in blocks[self.own : self.own + 1]:
            x_NCHW = torch.cat(block.frame(x_NCHW), dim=1)
        return x_NCHW.permute(0, 2, 3, 1)

    def together(self, cells_BTHWD: Tensor) -> Tensor:
        """Return the map [N, M, H, W] of clips whose frames went through `apart`."""
        frames = cells_BTHWD.shape[1]
        x_NCHW = cells_BTHWD.flatten(0, 1).permute(0, 3, 1, 2)
        blocks = cast(Sequence[CausalBlock], self.blocks)
        for block in blocks[self.own : self.own + 1]:
            inner = block.config.inner
            x_NCHW = block.clip(x_NCHW[:, :inner], x_NCHW[:, inner:], frames)
        for block in blocks[self.own + 1 :]:
            x_NCHW = block(x_NCHW, frames)
        return self.end(x_NCHW)

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
        return _cells(self.model.states(pixels_BTCHW)[-1], pixels_BTCHW)

    def begin(self, pixels_NCHW: Tensor) -> Tensor:
        """Do what is each frame's own; returns cells_NHWD."""
        begun_NHWD: Tensor = self.model.apart(pixels_NCHW)
        return begun_NHWD

    def finish(self, begun_BTHWD: Tensor) -> Tensor:
        """Return features_BTE of clips whose frames have begun."""
        return self.read(_cells(self.model.together(begun_BTHWD), begun_BTHWD))

    def read(self, cells_BTLM: Tensor) -> Tensor:
        """Return features_BTE of them."""
        features: Tensor = self.model.read(cells_BTLM.mean(dim=2))
        return features

    def head(self, features_N1E: Tensor) -> Tensor:
        """Return the features; the one token of an instant is its feature already."""
        return features_N1E[:, 0]


def _cells(map_NMHW: Tensor, clips_BT: Tensor) -> Tensor:
    """Lay the cells of maps side by side, by clip and frame; cells_BTLM."""
    return map_NMHW.flatten(2).transpose(1, 2).unflatten(0, clips_BT.shape[:2])


def averaged(x_NCHW: Tensor, side: int) -> Tensor:
    """Return the means of squares of cells; for few channels a convolution is 5 times faster."""
    if side == 1:
        return x_NCHW
    channels = x_NCHW.shape[1]
    if channels > FEW:
        return F.avg_pool2d(x_NCHW, side)
    share = x_NCHW.new_full((channels, 1, side, side), side**-2)
    return F.conv2d(x_NCHW, share, stride=side, groups=channels)


def along_space(layer: nn.Conv2d, x_NCHW: Tensor, stride: int) -> Tensor:
    """Run a convolution that keeps size / stride, as on `padded` cells.

    The library pads alike on all sides, so where that does not do, the kernel gets a row and a
    column of zeros: a padded copy of the cells costs more.
    """
    less, more = margins(layer.kernel_size[0], stride)
    weight = F.pad(layer.weight, (more - less, 0) * 2) if more > less else layer.weight
    return F.conv2d(x_NCHW, weight, layer.bias, stride, more, groups=layer.groups)


def padded(x_NCHW: Tensor, kernel: int, stride: int) -> Tensor:
    """Pad for a convolution that keeps size / stride."""
    return F.pad(x_NCHW, margins(kernel, stride) * 2)


def margins(kernel: int, stride: int) -> tuple[int, int]:
    """Return the cells to the left or above, and those to the right or below: the odd one there."""
    both = kernel - 1 if stride == 1 else max(kernel - stride, 0)
    return both // 2, both - both // 2
