"""Read a recipe by its name or from a file, with some fields changed."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from training.errors import InputError, refusal
from training.meta.recipe import FitRecipe
from training.meta.recipes.named import RECIPES


def recipe_help() -> str:
    """Describe every field of a recipe with its default, a line or two each."""
    described = FitRecipe.__pydantic_fields__  # type: ignore[attr-defined]
    lines = ["Fields of a recipe, with the values of `adamw`; `--set FIELD=VALUE` changes one:"]
    lines += [
        f"  {name}={json.dumps(value)}\n      {described[name].description}"
        for name, value in dataclasses.asdict(FitRecipe()).items()
    ]
    return "\n".join(lines)


def own_recipe(preset: str) -> str:
    """Name the recipe that a preset is trained with unless another is asked for."""
    return preset if preset in RECIPES else "adamw"


NO_LIST = ("tuple_type", "missing", "too_long")  # what pydantic calls a value that is no full list
DEFAULTS = dataclasses.asdict(FitRecipe())
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
        name = str(next(iter(first["loc"]), "recipe"))  # a rule between fields has no place
        if first["type"] in NO_LIST and (usual := DEFAULTS.get(name)):
            example = f"{name}={json.dumps(usual, separators=(',', ':'))}"
            raise InputError(
                f"The value of {name} is {first['input']!r}; write a list, such as {example}."
            ) from error
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
