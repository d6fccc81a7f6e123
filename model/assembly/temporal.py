"""What happens along time above the backbone."""

from collections.abc import Sequence
from typing import assert_never

from model.config.temporal import ConvolutionConfig, SloshNetConfig, TemporalConfig
from model.slots import Temporal
from model.temporal.convolution import TemporalConvolution
from model.temporal.sloshnet import SloshNet


def build_temporal(
    config: TemporalConfig | None, features: int, levels: Sequence[int]
) -> Temporal | None:
    """Build what looks along time, or nothing.

    Args:
        config: Which.
        features: Width of a frame's features.
        levels: Channels of each of the tower's levels; none of a network that sees whole clips.

    Raises:
        MethodError: It does not fit the widths.
    """
    match config:
        case None:
            return None
        case ConvolutionConfig(ratio=ratio):
            return TemporalConvolution(features, ratio)
        case SloshNetConfig(heads=heads, released=released):
            return SloshNet(levels, heads=heads, released=released)
        case _:
            assert_never(config)
