"""What happens along time above the backbone."""

from collections.abc import Sequence
from typing import assert_never

from model.config.temporal import (
    ConvolutionConfig,
    DenseConfig,
    LstmConfig,
    MeanConfig,
    ShiftConfig,
    SloshNetConfig,
    TemporalConfig,
    TokenTransformerConfig,
    TransformerConfig,
)
from model.errors import MethodError
from model.slots import Temporal
from model.temporal.convolution import TemporalConvolution
from model.temporal.dense import DenseTemporal
from model.temporal.pooling import FrameShift, Lstm, MeanFrame
from model.temporal.sloshnet import SloshNet
from model.temporal.transformer import FrameTokenTransformer, FrameTransformer


def build_temporal(
    config: TemporalConfig | None, features: int, frames: int, levels: Sequence[int] = ()
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
        case MeanConfig():
            return MeanFrame(features)
        case ShiftConfig():
            return FrameShift(features)
        case LstmConfig():
            return Lstm(features)
        case TransformerConfig(depth=depth, head_width=width):
            _check_heads(features, features / width)
            return FrameTransformer(features, frames, depth=depth, heads=features // width)
        case TokenTransformerConfig():
            return _token_transformer(config, features, frames)
        case SloshNetConfig(heads=heads, released=released):
            return SloshNet(levels, heads=heads, released=released)
        case DenseConfig():
            return _dense(config, frames, levels)
        case _:
            assert_never(config)


def _token_transformer(
    config: TokenTransformerConfig, features: int, frames: int
) -> FrameTokenTransformer:
    _check_heads(features, config.heads)
    return FrameTokenTransformer(
        features,
        frames,
        depth=config.depth,
        heads=config.heads,
        hidden=config.hidden,
        dropout=config.dropout,
    )


def _check_heads(features: int, heads: float) -> None:
    if heads < 1 or features % heads:
        raise MethodError(
            f"{heads:g} heads do not divide features of width {features}; choose another number."
        )


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
