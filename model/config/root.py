"""Root of all configs, and the ranges that their numbers share."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]
Scales = tuple[float, float]  # probabilities are softmax(scale * logits): at 1 and at 5 shots


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Root of all configs: unknown keys are refused when one is read."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
