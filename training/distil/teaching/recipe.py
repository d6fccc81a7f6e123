"""How a distilled network is taught motions and words; frozen values, stored with the result."""

import dataclasses
from pathlib import Path
from typing import Annotated

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class MotionRecipe:
    """How the last blocks learn to name motions."""

    first: NonNegativeInt = 7  # block that learns first; those before it stay
    clips: PositiveInt = 2400  # synthetic ones
    pictures: NonNegativeInt = 1200  # whose features are held, beside real clips
    draws: PositiveInt = 2  # views of each real clip
    steps: PositiveInt = 1500
    batch: PositiveInt = 12
    held_batch: PositiveInt = 8
    keep: NonNegativeFloat = 10.0  # weight of what the features of real clips may not do: move
    lr: PositiveFloat = 5e-4
    head_rate: PositiveFloat = 5.0  # rate of the linear map to motions / lr
    warmup: PositiveInt = 50  # steps
    weight_decay: NonNegativeFloat = 1e-3
    clip: PositiveFloat = 1.0  # largest norm of a gradient
    seed: NonNegativeInt = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SpreadRecipe:
    """How evenly features are spread, and what all clips have in common."""

    power: Share = 0.6  # 0 leaves directions as strong as they are, 1 makes all alike
    floor: PositiveFloat = 1e-3  # of a direction's variance, in the largest
    common: NonNegativeFloat = 0.3  # a constant feature; a clip's others have length 1


@dataclass(frozen=True, slots=True, kw_only=True)
class WordRecipe:
    """How the text tower learns words."""

    pictures: PositiveInt = 6000  # that a camera moves over, beside real clips
    clips: PositiveInt = 1600  # synthetic ones, with captions
    ridge: PositiveFloat = 0.03  # of the map from features to names
    vocabulary: PositiveInt = 24_000  # most frequent words, beside all forms of the names' words
    steps: PositiveInt = 1600
    batch: PositiveInt = 96  # texts of names
    captioned: PositiveInt = 24  # synthetic clips of a step
    part: Share = 0.5  # chance of a part of a name
    form: Share = 0.5  # chance of other forms of its words
    described: Share = 0.3  # chance of a sentence of other words beside it
    bare: Share = 0.07  # chance of the name without a sentence
    noise: NonNegativeFloat = 0.7  # of words' vectors, in their deviation
    level: Annotated[float, Field(gt=0, lt=1)] = 0.8  # of the constant feature in a text's
    share: PositiveFloat = (
        1 / 3
    )  # of its weight in the product that a text keeps afterwards; by val
    sharpness: PositiveFloat = 55.0  # factor of the cosines of texts and names
    lr: PositiveFloat = 2e-3
    weight_decay: NonNegativeFloat = 0.05
    clip: PositiveFloat = 1.0  # largest norm of a gradient
    seed: NonNegativeInt = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LessonJob:
    """Which network is taught, from what, and where."""

    start: str  # a causal checkpoint
    teacher: Path
    names: Path  # of the teacher's classes, a line each
    vectors: Path  # of words
    clips: tuple[Path, ...]
    pictures: tuple[Path, ...]
    leave_out: tuple[str, ...]
    motions: MotionRecipe
    spread: SpreadRecipe
    words: WordRecipe
    out: Path
