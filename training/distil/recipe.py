"""What a student is distilled from, and how it learns; no torch."""

import dataclasses
from pathlib import Path
from typing import Annotated

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from model.config.towers import CausalConfig

BelowOne = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoRecipe:
    """How a student learns; stored with the result."""

    pictures: PositiveInt = 5  # of a step; a camera moves over each
    clips: NonNegativeInt = 2  # of a step
    synthetic: NonNegativeInt = 1  # of a step
    frames: PositiveInt = 8  # of each
    apart: NonNegativeInt = 1500  # steps in which each block learns alone
    lr: NonNegativeFloat = 3e-3  # of blocks alone
    whole_lr: NonNegativeFloat = 1e-3  # of the network as a whole
    weight_decay: NonNegativeFloat = 1e-3
    warmup: PositiveInt = 50  # steps
    fall: Annotated[float, Field(gt=0, le=1)] = 0.25  # share of the steps at the end
    average: BelowOne = 0.995  # decay of the running average of the weights
    clip: PositiveFloat = 5.0  # largest norm of a gradient
    seed: NonNegativeInt = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StudentJob:
    """Which student is distilled, from what, and where."""

    teacher: Path
    clips: tuple[Path, ...]
    pictures: tuple[Path, ...]
    leave_out: tuple[str, ...]
    steps: int
    check_every: int
    max_seconds: float
    tower: CausalConfig
    served: int  # pixels of a side of what is served
    recipe: VideoRecipe
    out: Path
