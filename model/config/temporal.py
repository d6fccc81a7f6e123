"""What happens along time above the backbone."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from model.config.root import Config, Count


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvolutionConfig(Config):
    """A residual convolution along time over frame features (M2-CLIP's t_adapter)."""

    kind: Literal["convolution"] = "convolution"
    ratio: float = 0.5  # width of the convolution / feature width


@dataclass(frozen=True, slots=True, kw_only=True)
class SloshNetConfig(Config):
    """Four levels of the tower fused, and motion in short and long term (SloshNet)."""

    kind: Literal["sloshnet"] = "sloshnet"
    heads: Count = 8  # of the attention along time
    released: bool = False  # clips of a pass see each other, as in the released code; not served


TemporalConfig = Annotated[ConvolutionConfig | SloshNetConfig, Field(discriminator="kind")]
Temporal = Annotated[TemporalConfig | None, Field(exclude_if=lambda temporal: temporal is None)]
