"""What `training.evaluate` and `training.compare` wrote, read strictly: the values of a report.

`evaluate` tells one document on its last line, `compare` writes one to `table.json`; both have
cells, and a cell is one row's answers to the episodes of one number of ways and shots.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from training.errors import InputError

REMEDY = "give the JSON that training.evaluate prints last, or the table.json of training.compare"


class Values(BaseModel):
    """Fields of a document; those that a page does not show are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Difference(Values):
    """How much better than a base, paired in each episode, percent."""

    base: str
    mean: float
    interval: float | None  # half of the 95 % interval over episodes
    episodes: int


class Stages(Values):
    """Mean scores of each label's queries against the texts of stages, [label][stage]."""

    own: list[list[float | None]]
    others: list[list[float | None]]


class Cell(Values):
    """One row's answers to the episodes of one number of ways and shots; shares in percent."""

    ways: int
    shots: int
    query_context: str
    transductive: bool
    accuracy: float
    by_class: dict[str, float | None]
    confusion: list[list[float | None]]
    checkpoint: str = ""
    revision: str = ""
    checkpoints: list[str] = Field(default_factory=list)
    seeds: int = 1
    episodes: int | None = None
    interval: float | None = None  # of a single checkpoint, over episodes
    interval_seeds: float | None = None
    interval_episodes: float | None = None
    class_intervals: dict[str, float | None] = Field(default_factory=dict)
    answered: list[list[int]] | None = None
    asked: list[list[int]] | None = None
    stages: Stages | None = None
    beyond: Difference | None = None

    @model_validator(mode="after")
    def _square(self) -> Self:
        """Refuse matrices that do not have a row and a column for each label."""
        count = len(self.by_class)
        for matrix in (self.confusion, self.answered):
            if matrix is not None and [len(row) for row in matrix] != [count] * count:
                raise ValueError(f"a matrix is not of {count} labels")
        if self.stages is not None:
            rows = [*self.stages.own, *self.stages.others]
            lengths = {len(row) for row in rows}
            if len(rows) != 2 * count or len(lengths) != 1 or 0 in lengths:
                raise ValueError(f"stage scores are not of {count} labels")
        return self

    @property
    def reach(self) -> float | None:
        """Half of its 95 % interval: over seeds where there are several, else over episodes."""
        return self.interval_seeds if self.seeds > 1 else self.over_episodes

    @property
    def over_episodes(self) -> float | None:
        """Half of its 95 % interval over episodes."""
        return self.interval_episodes if self.interval is None else self.interval

    @property
    def labels(self) -> list[str]:
        """All labels, the order of rows and columns."""
        return list(self.by_class)


class Measured(Values):
    """What figures were measured with; documents of earlier versions do not say."""

    command: str | None = None
    data: str | None = None
    environment: dict[str, str] = Field(default_factory=dict)


class Evaluation(Values):
    """The document of `training.evaluate`; a list of episodes has sizes of its own."""

    measured: Measured = Measured()
    split: str
    rows: list[Cell] = Field(min_length=1)
    over_seeds: list[Cell] = Field(default_factory=list)
    queries: int | None = None
    episodes: int | None = None
    seed: int | None = None
    listed: str | None = Field(default=None, alias="list")


class MethodRow(Values):
    """A finished row of a comparison."""

    name: str
    seeds: list[int]
    trained_parameters: int
    seconds: list[float]
    best_steps: list[int]
    val: list[Cell] = Field(min_length=1)
    test: list[Cell] = Field(min_length=1)


class Unfinished(Values):
    """A row of a comparison that has no figures yet."""

    name: str
    seeds: list[int]
    trained: list[int]


class Comparison(Values):
    """The document of `training.compare`."""

    measured: Measured = Measured()
    budget: str
    rows: list[MethodRow]
    unfinished: list[Unfinished] = Field(default_factory=list)


def read_document(values: Mapping[str, Any], name: str) -> Evaluation | Comparison:
    """Read the document of either command.

    Args:
        values: As JSON gives them.
        name: Of the file, for the message.

    Raises:
        InputError: It is of neither, or a row has no results.
    """
    try:
        return (Comparison if "budget" in values else Evaluation).model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{name} has no results at {field} ({first['msg']}); {REMEDY}.") from error


def read_file(file: Path) -> Evaluation | Comparison:
    """Read the document of a file.

    Raises:
        InputError: The file is not there, is not JSON, or as `read_document`.
    """
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}); {REMEDY}.") from error
    except ValueError as error:
        raise InputError(f"{file} is not JSON ({error}); {REMEDY}.") from error
    if not isinstance(values, dict):
        raise InputError(f"{file} holds no JSON object; {REMEDY}.")
    return read_document(values, str(file))
