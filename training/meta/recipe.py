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

    episodes: PositiveInt = 2000  # in all
    per_step: PositiveInt = 4  # episodes of one step of the optimiser
    # classes of an episode, drawn between, both included
    ways: Annotated[tuple[Ways, Ways], AfterValidator(in_order)] = (5, 5)
    shots: Annotated[tuple[PositiveInt, PositiveInt], AfterValidator(in_order)] = (1, 5)
    queries: PositiveInt = 1  # of each class
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: PositiveFloat = 1e-3
    place_rate: PositiveFloat = 1.0  # rate of the embedding of frame places, as a multiple of lr
    weight_decay: NonNegativeFloat = 0.05
    warmup: Share = 0.05  # share of the steps
    schedule: Literal["cosine", "constant"] = "cosine"
    clip: NonNegativeFloat = 1.0  # largest norm of a gradient; 0 leaves it
    average: Share = 0.99  # decay of the running average that is validated and kept; 0 for none
    dropout: Share = 0.1  # of the adapters' hidden values
    drop_path: Share = 0.0  # chance of an adapter to be left out of an episode
    smoothing: Share = 0.0  # of the labels
    # The loss divides logits by this; answers do not change. At 1 a few wrong queries decide.
    temperature: PositiveFloat = 6.0
    near_frozen: NonNegativeFloat = 0.0  # 1 - cosine to the frozen tower's features
    near_frozen_textless: NonNegativeFloat = 0.0  # added where an episode's labels have no text
    near_start_textless: NonNegativeFloat = 0.0  # there, to the features of the start's weights
    consistency: NonNegativeFloat = 0.0  # how two draws of a query differ in their answers
    stages: NonNegativeFloat = 0.0  # contrast of each stage's text, where episodes have text
    patches: Annotated[float, Field(gt=0, le=1)] = 1.0  # share of patch tokens that training sees
    text_dropout: Share = 0.0  # chance of an episode without text
    draws: NonNegativeInt = 2  # augmentation draws of each clip; 0 trains on the plain view
    # chance of a draw that is mirrored; 0 where directions are classes
    mirror: Annotated[float, Field(ge=0, le=1)] = 0.5
    val_every: PositiveInt = 50  # steps
    val_episodes: PositiveInt = 200  # of each of `val_shots`
    val_shots: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (1, 5)
    val_queries: PositiveInt = 5  # of each class
    patience: NonNegativeInt = 0  # validations without a better one after which to stop; 0: never
    seed: NonNegativeInt = 0

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
