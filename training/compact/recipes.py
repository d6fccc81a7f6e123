"""How each stage of pretraining learns; frozen values, stored with the result."""

from typing import Annotated

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

BelowOne = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecipe:
    """How the image tower is distilled; stored with the result."""

    steps: PositiveInt = 3600
    batch: PositiveInt = 32
    lr: NonNegativeFloat = 2e-3  # of block matrices, by Muon
    rest_lr: NonNegativeFloat = 1e-3  # of everything else, by AdamW
    weight_decay: NonNegativeFloat = 0.02
    warmup: BelowOne = 0.03  # share of the steps
    views: PositiveInt = 1024  # fresh ones in a round
    reuse: PositiveInt = 4  # visits to each view
    keep: Annotated[float, Field(gt=0, le=1)] = 0.5  # share of patch tokens seen in the first part
    full_from: NonNegativeFloat = 0.88  # share of the steps after which all patch tokens are seen
    inner: NonNegativeFloat = 1.0  # weight of inner depths at the end; it starts at 1
    average: BelowOne = 0.99  # decay of the running average of the weights
    clip: PositiveFloat = 1.0  # largest norm of a gradient
    seed: NonNegativeInt = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MotionRecipe:
    """How adapters learn motions; stored with the result."""

    clips: PositiveInt = 1600  # synthetic ones
    steps: PositiveInt = 1000
    batch: PositiveInt = 12
    lr: NonNegativeFloat = 3e-3
    place_rate: NonNegativeFloat = 5.0  # rate of the embedding of frame places / lr
    head_rate: NonNegativeFloat = 3.0  # and of the linear map
    warmup: PositiveInt = 20  # steps
    clip: PositiveFloat = 1.0  # largest norm of a gradient
    patches: Annotated[float, Field(gt=0, le=1)] = 0.5  # share of patch tokens that a step sees
    keep: NonNegativeFloat = 0.0  # weight of 1 - cosine to the features of other clips before
    keep_batch: PositiveInt = 8  # of those
    seed: NonNegativeInt = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRecipe:
    """How the text tower learns; stored with the result."""

    steps: PositiveInt = 400
    batch: PositiveInt = 32
    whole: Annotated[float, Field(ge=0, le=1)] = 0.6  # chance of a caption of the whole action
    rivals: NonNegativeInt = 2  # of each synthetic clip, each in both forms of a caption
    lr: NonNegativeFloat = 1e-3
    weight_decay: NonNegativeFloat = 0.1
    sharpness: PositiveFloat = 40.0  # factor of the cosines in the contrast
    level: Annotated[float, Field(ge=-1, le=1)] = 0.5  # of the mean cosine: text stays positive
    level_weight: NonNegativeFloat = 4.0
    seed: NonNegativeInt = 0
