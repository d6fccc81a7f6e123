"""What happens along time above the backbone."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from model.config.root import Config


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvolutionConfig(Config):
    """A residual convolution along time over frame features (M2-CLIP's t_adapter)."""

    kind: Literal["convolution"] = "convolution"
    ratio: float = 0.5  # width of the convolution / feature width


TemporalConfig = ConvolutionConfig
Temporal = Annotated[TemporalConfig | None, Field(exclude_if=lambda temporal: temporal is None)]
