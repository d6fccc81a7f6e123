"""A matrix of methods to compare, as JSON: rows, seeds, one budget and one evaluation for all.

    {"backbone": "timm:vit_tiny_patch16_224",
     "seeds": [0, 1, 2], "ways": 5, "shots": [1, 5], "queries": 5, "episodes": 3000,
     "recipe": "adamw", "set": {"episodes": 1200, "val_every": 50},
     "rows": [{"name": "frozen", "preset": "frozen", "train": false},
              {"name": "self, L = 2", "preset": "task_adapter", "blocks": 2,
               "query_context": "self", "set": {"lr": 1e-4}}]}

A row has a name, a preset, fields of `MethodChanges`, `train` and `set`, changes of the recipe for
itself; `recipe` names another recipe, `own` that of its preset. Neither changes what makes budgets
and selection equal (`BUDGET`). `backbone` may stand in a row too. `episodes` beside `ways`
are those of the evaluation, `set.episodes` those of training. Of all fields but `rows` the
defaults are those of `Matrix` and `Row`.
"""

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import (
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    TypeAdapter,
    ValidationError,
)

from model.errors import first_fault
from training.errors import InputError
from training.meta.choice import MethodChanges, MethodChoice
from training.meta.recipe import FitRecipe
from training.meta.recipes.reading import own_recipe, read_recipe

# What rows cannot change for themselves: training episodes, and how val chooses.
BUDGET = (
    "episodes", "patience", "seed", "val_every", "val_episodes", "val_shots", "val_queries",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Row(MethodChanges):
    """One method of the matrix."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    name: str
    preset: str
    train: bool = True  # False: its backbone as it is, one cell without seed
    backbone: str | None = None  # None: the matrix's
    recipe: str | None = None  # instead of the matrix's, but for the budget; `own`: the preset's
    set: dict[str, Any] = field(default_factory=dict)  # changes of the recipe

    @property
    def folder(self) -> str:
        """Its name as part of a file's."""
        return re.sub(r"[^a-z0-9.]+", "-", self.name.lower()).strip("-.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """Rows that are trained and evaluated alike."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    rows: Annotated[tuple[Row, ...], Field(min_length=1)]
    backbone: str = "compact"  # as KSHOT_CHECKPOINT
    seeds: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] = (0, 1, 2)
    ways: Annotated[int, Field(ge=2)] = 5  # fewer on a split with fewer labels
    shots: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (1, 5)
    queries: PositiveInt = 5  # of each class
    episodes: PositiveInt = 3000  # of the evaluation, for each number of shots
    recipe: str = "adamw"  # a preset, or a JSON file
    set: dict[str, Any] = field(default_factory=dict)  # changes of the recipe

    def recipe_of(self, row: Row, seed: int) -> FitRecipe:
        """Return what a cell is trained with.

        Raises:
            InputError: the recipe does not fit.
        """
        changes = self.changes(row, seed)
        if row.recipe is None:
            return read_recipe(self.recipe, changes)
        shared = dataclasses.asdict(read_recipe(self.recipe, as_json(self.set)))
        budget = as_json({name: shared[name] for name in BUDGET if name != "seed"})
        named = own_recipe(row.preset) if row.recipe == "own" else row.recipe
        return read_recipe(named, as_json(row.set) | budget | {"seed": changes["seed"]})

    def changes(self, row: Row, seed: int) -> dict[str, str]:
        """Return the changes of the recipe, as `read_recipe` takes them."""
        return as_json({**self.set, **row.set, "seed": seed})

    def choice(self, row: Row, weights: Path | None = None) -> MethodChoice:
        """Return the method of a row."""
        changes = {f.name: getattr(row, f.name) for f in dataclasses.fields(MethodChanges)}
        return MethodChoice(
            preset=row.preset,
            backbone=row.backbone or self.backbone,
            backbone_weights=weights,
            **changes,
        )

    def seeds_of(self, row: Row) -> tuple[int, ...]:
        """Return the seeds that a row is trained with."""
        return self.seeds if row.train else ()


def as_json(values: Mapping[str, Any]) -> dict[str, str]:
    """Return changes of a recipe as `read_recipe` takes them."""
    return {name: json.dumps(value) for name, value in values.items()}


_READ: TypeAdapter[Matrix] = TypeAdapter(Matrix)


def read_matrix(file: Path) -> Matrix:
    """Read a matrix strictly.

    Raises:
        InputError: the file cannot be read, an unknown field, a value that does not fit, two rows
            of one name, or a row with a budget of its own.
    """
    try:
        matrix = _READ.validate_json(file.read_bytes())
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}); give a matrix.") from error
    except ValidationError as error:
        raise InputError(
            f"{file} is no matrix ({first_fault(error)}); "
            "`python -m training.compare --help` shows one."
        ) from error
    _check(file, matrix)
    return matrix


def _check(file: Path, matrix: Matrix) -> None:
    if len(set(matrix.seeds)) < len(matrix.seeds):
        raise InputError(f"{file} names a seed twice; a seed gives the same training again.")
    folders = [row.folder for row in matrix.rows]
    for row in matrix.rows:
        if not row.folder or folders.count(row.folder) > 1:
            raise InputError(
                f"The row name {row.name!r} is empty or another's, in small letters and digits; "
                "give each row a name of its own."
            )
        own = [name for name in BUDGET if name in row.set]
        if own:
            raise InputError(
                f"The row {row.name!r} sets {own[0]!r} for itself; budget and selection are equal "
                "for all rows, so set it for the matrix."
            )
        for seed in matrix.seeds_of(row):
            matrix.recipe_of(row, seed)
