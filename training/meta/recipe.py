"""The recipe of a meta-training: a frozen value, read strictly."""

import dataclasses
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)
from pydantic.dataclasses import dataclass


def in_order(numbers: tuple[int, int]) -> tuple[int, int]:
    """Check that a range does not end before it starts."""
    if numbers[0] > numbers[1]:
        raise ValueError(f"The range {list(numbers)} ends before it starts; give [low, high]")
    return numbers


Share = Annotated[float, Field(ge=0, lt=1)]
Ways = Annotated[int, Field(ge=2)]
Milestone = tuple[Annotated[float, Field(ge=0, le=1)], NonNegativeFloat]

# Run folders of before these fields were there belong to recipes that do not use them.
LATER_FIELDS = (
    "weights", "rates", "milestones", "warmup_from", "betas", "momentum", "augmentation",
    "drop_path_grows", "apart",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Apart:
    """An optimiser of their own for the weights whose names begin so; the schedule is shared."""

    names: str
    optimizer: Literal["adamw", "adam", "sgd"]
    lr: PositiveFloat
    weight_decay: NonNegativeFloat = 0.0
    betas: tuple[Share, Share] = (0.9, 0.999)
    momentum: Share = 0.0


@dataclass(frozen=True, slots=True, kw_only=True, config=ConfigDict(extra="forbid"))
class FitRecipe:
    """How adapters are meta-trained; stored with the result.

    The fields from `near_frozen` to `stages` are weights of losses (`training.meta.losses`); the
    weights of all other losses are in `weights`.
    """

    episodes: PositiveInt = Field(default=2000, description="Episodes to train on, in all.")
    per_step: PositiveInt = Field(default=4, description="Episodes of one step of the optimiser.")
    ways: Annotated[tuple[Ways, Ways], AfterValidator(in_order)] = Field(
        default=(5, 5), description="Classes of an episode, drawn between the two, both included."
    )
    shots: Annotated[tuple[PositiveInt, PositiveInt], AfterValidator(in_order)] = Field(
        default=(1, 5),
        description="Support clips of a class, drawn between the two, both included.",
    )
    queries: PositiveInt = Field(default=1, description="Query clips of each class of an episode.")
    optimizer: Literal["adamw", "adam", "sgd"] = Field(
        default="adamw",
        description="What changes the weights; of `adam` the decay is part of the gradient.",
    )
    lr: PositiveFloat = Field(default=1e-3, description="Rate of learning, after the warm-up.")
    place_rate: PositiveFloat = Field(
        default=1.0, description="Rate of the embedding of frame places, as a multiple of lr."
    )
    weight_decay: NonNegativeFloat = Field(default=0.05, description="How strongly weights shrink.")
    warmup: Share = Field(default=0.05, description="Share of the steps in which the rate rises.")
    schedule: Literal["cosine", "constant", "steps"] = Field(
        default="cosine", description="How the rate goes on after the warm-up."
    )
    clip: NonNegativeFloat = Field(
        default=1.0, description="Largest norm of a gradient; 0 leaves gradients as they are."
    )
    average: Share = Field(
        default=0.99,
        description="Decay of the running average that is validated and kept; 0 keeps none.",
    )
    dropout: Share = Field(
        default=0.1, description="Share of the adapters' hidden values left out."
    )
    drop_path: Share = Field(
        default=0.0, description="Chance of an adapter to be left out of an episode."
    )
    smoothing: Share = Field(
        default=0.0, description="Share of a label that goes to the other classes."
    )
    temperature: PositiveFloat = Field(
        default=6.0,
        description="The loss divides logits by it; at 1 a few wrong queries decide.",
    )
    near_frozen: NonNegativeFloat = Field(
        default=0.0, description="Weight of the loss that stays near the frozen tower's features."
    )
    near_frozen_textless: NonNegativeFloat = Field(
        default=0.0,
        description="Weight added to near_frozen where an episode's labels have no text.",
    )
    near_start_textless: NonNegativeFloat = Field(
        default=0.0,
        description="Weight of staying near the start's features, where there is no text.",
    )
    consistency: NonNegativeFloat = Field(
        default=0.0, description="Weight of the loss between answers to two draws of a query."
    )
    stages: NonNegativeFloat = Field(
        default=0.0, description="Weight of the contrast of each stage's text, where there is text."
    )
    patches: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1.0, description="Share of the patch tokens that training sees."
    )
    text_dropout: Share = Field(default=0.0, description="Chance of an episode without text.")
    draws: NonNegativeInt = Field(
        default=2, description="Augmentation draws of each clip; 0 trains on the plain view."
    )
    mirror: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.5, description="Chance of a draw to be mirrored; 0 where directions are classes."
    )
    val_every: PositiveInt = Field(default=50, description="Steps between two validations.")
    val_episodes: PositiveInt = Field(
        default=200, description="Episodes of a validation, of each number of val_shots."
    )
    val_shots: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = Field(
        default=(1, 5), description="Support clips of a class in validations."
    )
    val_queries: PositiveInt = Field(
        default=5, description="Query clips of each class in validations."
    )
    patience: NonNegativeInt = Field(
        default=0,
        description="Validations without a better one after which to stop; 0 never stops.",
    )
    seed: NonNegativeInt = Field(default=0, description="Seed of all that is drawn by chance.")
    weights: dict[str, NonNegativeFloat] = Field(
        default_factory=dict,
        description="Weights of losses by name; without one for it, that of `query` is 1.",
    )
    rates: dict[str, PositiveFloat] = Field(
        default_factory=dict,
        description="Rates of the weights whose names begin so, as multiples of lr.",
    )
    milestones: tuple[Milestone, ...] = Field(
        default=(),
        description="Of the schedule `steps`: from which share of the steps on, which share of lr.",
    )
    warmup_from: Share = Field(default=0.0, description="Share of lr that the warm-up begins at.")
    betas: tuple[Share, Share] = Field(
        default=(0.9, 0.999), description="Decays of the moments of `adamw` and `adam`."
    )
    augmentation: Literal["full", "crop", "frame_crops", "queries"] = Field(
        default="full",
        description="What a draw changes: frames, crop and colour; frames and a crop's place, or "
        "each frame's; queries also mirrored and coloured, supports a crop.",
    )
    drop_path_grows: bool = Field(
        default=False,
        description="Whether drop_path is that of the last adapted block, and that of the first 0.",
    )
    momentum: Share = Field(default=0.0, description="Of `sgd`.")
    apart: tuple[Apart, ...] = Field(
        default=(),
        description="Optimisers of their own, for weights whose names begin with `names`.",
    )

    @model_validator(mode="after")
    def _check_draws(self) -> Self:
        if self.consistency and self.draws < 2:
            raise ValueError(
                f"The recipe's consistency compares draws, and its draws are {self.draws}; give 2 "
                "or more"
            )
        return self

    def claim(self) -> dict[str, Any]:
        """Return what a run folder belongs to; a field that came later counts where it is used."""
        held = dataclasses.asdict(self)
        unused = dataclasses.asdict(FitRecipe())
        return {
            name: value
            for name, value in held.items()
            if name not in LATER_FIELDS or value != unused[name]
        }

    @property
    def views(self) -> int:
        """Augmentation draws that a clip has; those of supports come before those of queries."""
        return 2 * self.draws if self.augmentation == "queries" else self.draws

    @property
    def steps(self) -> int:
        """Steps of the optimiser."""
        return -(-self.episodes // self.per_step)

    def __str__(self) -> str:
        """Say how long it trains."""
        return (
            f"{self.episodes} episodes, {self.per_step} a step, are {self.steps} steps; "
            f"validated every {self.val_every}, and at the end"
        )

    def losses(self, *, described: bool) -> dict[str, float]:
        """Return the weights of the losses of an episode, by name; those of weight 0 are left out.

        Args:
            described: Whether all labels of the episode have text.
        """
        weights = {
            "query": 1.0,
            "stages": self.stages,
            "consistency": self.consistency,
            "near_frozen": self.near_frozen + (0.0 if described else self.near_frozen_textless),
            "near_start": 0.0 if described else self.near_start_textless,
        }
        weights |= self.weights
        return {name: weight for name, weight in weights.items() if weight}
