"""timm's ResNets, torchvision's weights among them, without their classifier.

A ResNet has stages in the place of transformer blocks. Its tokens are the cells of a map, row by
row, and a stage changes their number and width.

Dimensions: B frames, C channels, H W pixels or cells, L cells of a map, E feature width.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from model.backbones.maps.levels import square_map
from model.slots import RGB, Block


class Stage:
    """View of one stage of a ResNet, on cells.

    Args:
        layer: The library's own; its weights stay its tower's.
    """

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer

    def run(self, cells_BLC: Tensor, mask: Tensor | None = None, /) -> Tensor:  # noqa: ARG002
        """Run the stage; there is no attention to mask. Returns cells_BLC of the next size."""
        return cells_of(self.layer(square_map(cells_BLC)))


class ResNetTower(nn.Module):
    """A timm ResNet; each frame by itself while its BatchNorms are frozen.

    Args:
        resnet: The library's own.
        size: Pixels of a side.
        mean: Of RGB in [0, 1].
        std: Likewise.
    """

    prefix_tokens = 0
    reads_class_token = False
    staged = True
    parts: Mapping[str, Sequence[str]] = {"class_token": (), "last_norm": ()}

    def __init__(self, resnet: Any, size: int, mean: RGB, std: RGB) -> None:  # noqa: ANN401
        super().__init__()
        self.model: Any = resnet
        self.size = size
        self.mean, self.std = mean, std
        self.width = self.features = int(resnet.num_features)
        layers = (resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4)
        self.blocks: Sequence[Block] = tuple(Stage(layer) for layer in layers)
        self.levels: Sequence[int] = tuple(range(1, len(layers) + 1))
        self.level_widths: Sequence[int] = tuple(
            int(found["num_chs"]) for found in resnet.feature_info[-4:]
        )

    def patches(self, pixels_BCHW: Tensor) -> Tensor:
        """Run what stands in front of the first stage."""
        stem_BCHW = self.model.act1(self.model.bn1(self.model.conv1(pixels_BCHW)))
        return cells_of(self.model.maxpool(stem_BCHW))

    def norm(self, cells_BLC: Tensor) -> Tensor:
        """Leave them: there is nothing between."""
        return cells_BLC

    def head(self, cells_BLC: Tensor) -> Tensor:
        """Return the mean over cells."""
        return cells_BLC.mean(dim=1)

    def pooled(self, cells_BLC: Tensor) -> Tensor:
        """Return the same: there is no projection."""
        return self.head(cells_BLC)

    def map(self, cells_BLC: Tensor) -> Tensor:
        """Lay the cells out."""
        return square_map(cells_BLC)


def cells_of(map_BCHW: Tensor) -> Tensor:
    """Return the cells [B, L, C] of a map, row by row."""
    return map_BCHW.flatten(2).transpose(1, 2)
