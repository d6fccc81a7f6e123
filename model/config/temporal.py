"""What happens along time above the backbone."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from model.config.root import Config, Count, Positive


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvolutionConfig(Config):
    """A residual convolution along time over frame features (M2-CLIP's t_adapter)."""

    kind: Literal["convolution"] = "convolution"
    ratio: float = 0.5  # width of the convolution / feature width


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseConfig(Config):
    """Places and channels of the last map along time, each seen in space (GgHM's LDTM)."""

    kind: Literal["dense"] = "dense"
    heads: Count = 8  # of the attention in space
    ratio: Positive = 1.0  # hidden width of its MLP / channels
    gap: Count = 4  # one place in so many stays as it was
    moved_share: Annotated[float, Field(ge=0, le=1)] = 0.5  # gamma
    patch_share: Annotated[float, Field(ge=0, le=1)] = 0.5  # beta


@dataclass(frozen=True, slots=True, kw_only=True)
class SloshNetConfig(Config):
    """Four levels of the tower fused, and motion in short and long term (SloshNet)."""

    kind: Literal["sloshnet"] = "sloshnet"
    heads: Count = 8  # of the attention along time
    released: bool = False  # clips of a pass see each other, as in the released code; not served


TemporalConfig = Annotated[
    ConvolutionConfig | DenseConfig | SloshNetConfig, Field(discriminator="kind")
]
Temporal = Annotated[TemporalConfig | None, Field(exclude_if=lambda temporal: temporal is None)]
