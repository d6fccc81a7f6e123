"""What happens along time above the backbone."""

from collections.abc import Sequence
from typing import assert_never

from model.config.temporal import (
    ConvolutionConfig,
    DenseConfig,
    SloshNetConfig,
    TemporalConfig,
)
from model.errors import MethodError
from model.slots import Temporal
from model.temporal.convolution import TemporalConvolution
from model.temporal.dense import DenseTemporal
from model.temporal.sloshnet import SloshNet


def build_temporal(
    config: TemporalConfig | None, features: int, frames: int, levels: Sequence[int]
) -> Temporal | None:
    """Build what looks along time, or nothing.

    Args:
        config: Which.
        features: Width of a frame's features.
        frames: Features of a clip along time.
        levels: Channels of each of the tower's levels; none of a network that sees whole clips.

    Raises:
        MethodError: It does not fit the tower.
    """
    match config:
        case None:
            return None
        case ConvolutionConfig(ratio=ratio):
            return TemporalConvolution(features, ratio)
        case SloshNetConfig(heads=heads, released=released):
            return SloshNet(levels, heads=heads, released=released)
        case DenseConfig():
            return _dense(config, frames, levels)
        case _:
            assert_never(config)


def _dense(config: DenseConfig, frames: int, levels: Sequence[int]) -> DenseTemporal:
    if not levels:
        raise MethodError(
            "Dense modelling along time reads maps of frames, and this network sees whole clips; "
            "choose a ViT or a ResNet."
        )
    channels = levels[-1]
    if channels % config.heads:
        raise MethodError(
            f"{config.heads} heads do not divide maps of {channels} channels; choose another "
            "number."
        )
    return DenseTemporal(
        channels,
        frames,
        heads=config.heads,
        ratio=config.ratio,
        gap=config.gap,
        moved_share=config.moved_share,
        patch_share=config.patch_share,
    )
