"""Recipes of meta-training: frozen values, read strictly; presets are a plain dict."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from training.errors import InputError

Range = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class FitRecipe:
    """How adapters are meta-trained; stored with the result."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    episodes: int = 2000  # in all
    per_step: int = 4  # episodes of one step of the optimiser
    ways: Range = (5, 5)  # classes of an episode, drawn between, both included
    shots: Range = (1, 5)
    queries: int = 1  # of each class
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float = 1e-3
    place_rate: float = 1.0  # rate of the embedding of frame places, as a multiple of lr
    weight_decay: float = 0.05
    warmup: float = 0.05  # share of the steps
    schedule: Literal["cosine", "constant"] = "cosine"
    clip: float = 1.0  # largest norm of a gradient; 0 leaves it
    average: float = 0.99  # decay of the running average that is validated and kept; 0 for none
    dropout: float = 0.1  # of the adapters' hidden values
    drop_path: float = 0.0  # chance of an adapter to be left out of an episode
    smoothing: float = 0.0  # of the labels
    # The loss divides logits by this; answers do not change. At 1 a few wrong queries decide.
    temperature: float = 6.0
    near_frozen: float = 0.0  # weight of 1 - cosine to the frozen tower's features
    near_frozen_textless: float = 0.0  # the same, where an episode's labels have no text
    near_start_textless: float = 0.0  # and to what the weights at the start made, each clip alone
    consistency: float = 0.0  # weight of how two draws of a query differ in their answers
    stages: float = 0.0  # weight of the contrast of each stage's text, where episodes have text
    patches: float = 1.0  # share of a clip's patch tokens that training looks at
    text_dropout: float = 0.0  # chance of an episode without text
    draws: int = 2  # augmentation draws of each clip; 0 trains on the plain view
    mirror: float = 0.5  # chance of a draw that is mirrored; 0 where directions are classes
    val_every: int = 50  # steps
    val_episodes: int = 200  # of each of `val_shots`
    val_shots: tuple[int, ...] = (1, 5)
    val_queries: int = 5  # of each class
    patience: int = 0  # validations without a better one after which to stop; 0 never stops
    seed: int = 0

    @property
    def steps(self) -> int:
        """Steps of the optimiser."""
        return -(-self.episodes // self.per_step)


RECIPES: dict[str, FitRecipe] = {
    "adamw": FitRecipe(),
    # Task-Adapter++'s configuration (specs/methods-1, section 6.7), with selection on val
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
    """Read a recipe's fields strictly, and refuse numbers that cannot work.

    Raises:
        InputError: an unknown field, or a value of another type or out of range.
    """
    try:
        recipe = _READ.validate_python(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        known = ", ".join(f.name for f in dataclasses.fields(FitRecipe))
        raise InputError(
            f"The recipe's field {field!r} does not fit ({first['msg']}); the fields are {known}."
        ) from error
    _check_ranges(recipe)
    return recipe


def _check_ranges(recipe: FitRecipe) -> None:
    for field, least in (("ways", 2), ("shots", 1)):
        low, high = getattr(recipe, field)
        if not least <= low <= high:
            raise InputError(
                f"The recipe's {field} run from {low} to {high}; give two numbers in order, "
                f"{least} or more."
            )
    for field in ("episodes", "per_step", "queries", "val_every", "val_episodes", "val_queries"):
        if getattr(recipe, field) < 1:
            raise InputError(f"The recipe's {field} is {getattr(recipe, field)}; give 1 or more.")
    for field in ("dropout", "drop_path", "smoothing", "text_dropout", "average", "warmup"):
        if not 0 <= getattr(recipe, field) < 1:
            raise InputError(
                f"The recipe's {field} is {getattr(recipe, field)}; give a share from 0 to below 1."
            )
    if not 0 < recipe.patches <= 1:
        raise InputError(
            f"The recipe's patches are {recipe.patches}; give a share above 0, up to 1."
        )
    if not 0 <= recipe.mirror <= 1:
        raise InputError(f"The recipe's mirror is {recipe.mirror}; give a chance from 0 to 1.")
    for field in (
        "weight_decay",
        "clip",
        "near_frozen",
        "near_frozen_textless",
        "near_start_textless",
        "consistency",
        "stages",
        "draws",
        "patience",
        "seed",
    ):
        if getattr(recipe, field) < 0:
            raise InputError(f"The recipe's {field} is {getattr(recipe, field)}; give 0 or more.")
    for field in ("lr", "place_rate", "temperature"):
        if getattr(recipe, field) <= 0:
            raise InputError(
                f"The recipe's {field} is {getattr(recipe, field)}; give a positive number."
            )
    if recipe.consistency and recipe.draws < 2:
        raise InputError(
            f"The recipe's consistency compares draws, and its draws are {recipe.draws}; give 2 or "
            "more."
        )
    if not recipe.val_shots or min(recipe.val_shots) < 1:
        raise InputError(f"The recipe's val_shots are {recipe.val_shots}; give 1 or more.")


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
