"""Recipes of meta-training: frozen values, read strictly; presets are a plain dict."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.dataclasses import dataclass

from training.errors import InputError, refusal


def in_order(numbers: tuple[int, int]) -> tuple[int, int]:
    """Check that a range does not end before it starts."""
    if numbers[0] > numbers[1]:
        raise ValueError(f"The range {list(numbers)} ends before it starts; give [low, high]")
    return numbers


Share = Annotated[float, Field(ge=0, lt=1)]
Ways = Annotated[int, Field(ge=2)]


@dataclass(frozen=True, slots=True, kw_only=True, config=ConfigDict(extra="forbid"))
class FitRecipe:
    """How adapters are meta-trained; stored with the result.

    The fields from `near_frozen` to `stages` are weights of losses (`training.meta.losses`).
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
    optimizer: Literal["adamw", "sgd"] = Field(
        default="adamw", description="What changes the weights."
    )
    lr: PositiveFloat = Field(default=1e-3, description="Rate of learning, after the warm-up.")
    place_rate: PositiveFloat = Field(
        default=1.0, description="Rate of the embedding of frame places, as a multiple of lr."
    )
    weight_decay: NonNegativeFloat = Field(default=0.05, description="How strongly weights shrink.")
    warmup: Share = Field(default=0.05, description="Share of the steps in which the rate rises.")
    schedule: Literal["cosine", "constant"] = Field(
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

    @model_validator(mode="after")
    def _check_draws(self) -> Self:
        if self.consistency and self.draws < 2:
            raise ValueError(
                f"The recipe's consistency compares draws, and its draws are {self.draws}; give 2 "
                "or more"
            )
        return self

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
        return {name: weight for name, weight in weights.items() if weight}


RECIPES: dict[str, FitRecipe] = {
    "adamw": FitRecipe(),
    # Task-Adapter++'s recipe (model/papers/task_adapter.md, section 9), with selection on val
    "paper": FitRecipe(
        episodes=10_000,
        per_step=1,
        shots=(1, 1),
        optimizer="sgd",
        lr=1e-3,
        weight_decay=0.0,
        warmup=0.0,
        schedule="constant",
        clip=0.0,
        average=0.0,
        dropout=0.0,
        temperature=1.0,
        draws=0,
        val_every=500,
    ),
}


def recipe_help() -> str:
    """Describe every field of a recipe with its default, a line or two each."""
    described = FitRecipe.__pydantic_fields__  # type: ignore[attr-defined]
    lines = ["Fields of a recipe, with the values of `adamw`; `--set FIELD=VALUE` changes one:"]
    lines += [
        f"  {name}={json.dumps(value)}\n      {described[name].description}"
        for name, value in dataclasses.asdict(FitRecipe()).items()
    ]
    return "\n".join(lines)


_READ: TypeAdapter[FitRecipe] = TypeAdapter(FitRecipe)


def read_recipe(source: str, changes: Mapping[str, str]) -> FitRecipe:
    """Return a preset, or the recipe of a JSON file, with some fields changed.

    Args:
        source: A name in `RECIPES`, or a file.
        changes: Field to new value, as JSON (`lr` to `1e-4`, `ways` to `[5, 20]`).

    Raises:
        InputError: no such preset or file, an unknown field, or a value that does not fit.
    """
    preset = RECIPES.get(source)
    values = _read_file(Path(source)) if preset is None else dataclasses.asdict(preset)
    for field, text in changes.items():
        try:
            values[field] = json.loads(text)
        except json.JSONDecodeError:
            values[field] = text
    return checked(values)


def checked(values: Mapping[str, Any]) -> FitRecipe:
    """Read a recipe's fields strictly.

    Raises:
        InputError: An unknown field, or a value of another type or out of range.
    """
    try:
        return _READ.validate_python(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] != "unexpected_keyword_argument":
            raise refusal(error) from error
        field, known = first["loc"][-1], ", ".join(f.name for f in dataclasses.fields(FitRecipe))
        raise InputError(f"A recipe has no field {field!r}; its fields are {known}.") from error


def _read_file(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text())
    except FileNotFoundError as error:
        raise InputError(
            f"{str(file)!r} is neither a recipe's file nor one of {', '.join(RECIPES)}; give one."
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read as JSON ({error}); repair it.") from error
    if not isinstance(values, dict):
        raise InputError(f"{file} holds no JSON object; write a recipe's fields.")
    return values
