"""What the commands are asked for: targets, students, and how a student learns; no torch."""

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

    pictures: PositiveInt = 64  # of a step
    window: PositiveInt = 1  # frames of each that are seen
    clips: PositiveInt = 6  # of a step, real and synthetic, all frames
    lr: NonNegativeFloat = 2e-3  # of matrices, by Muon
    rest_lr: NonNegativeFloat = 2e-3  # of everything else, by AdamW
    weight_decay: NonNegativeFloat = 0.02
    warmup: PositiveInt = 50  # steps
    fall: Annotated[float, Field(gt=0, le=1)] = 0.25  # share of the steps at the end
    average: BelowOne = 0.998  # decay of the running average of the weights
    clip: PositiveFloat = 1.0  # largest norm of a gradient
    seed: NonNegativeInt = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TargetsJob:
    """Which targets are made, and where."""

    teacher: Path
    clips: tuple[Path, ...]
    pictures: tuple[Path, ...]
    synthetic: int
    leave_out: tuple[str, ...]
    frames: int
    side: int
    draws: int
    seed: int
    out: Path


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StudentJob:
    """Which student is distilled, and where."""

    targets: Path
    held_out: tuple[Path, ...]
    steps: int
    check_every: int
    max_seconds: float
    tower: CausalConfig
    recipe: VideoRecipe
    out: Path
