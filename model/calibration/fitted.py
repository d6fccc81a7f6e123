"""Logits to probabilities, and the evidence below which a clip is none of a task's labels.

A checkpoint folder keeps what was fitted in `calibration.json`, beside the fingerprint of the
weights that it was fitted for. Weights without one get the default of their backbone's family.

Dimensions: E feature width.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from model.errors import CheckpointError, first_fault
from model.files import write_file
from model.fusion import TaskCalibration

CALIBRATION = "calibration.json"
FORMAT: Literal["kshot-calibration-1"] = "kshot-calibration-1"


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Fit(_Strict):
    """What a row was fitted on, and its error there.

    Episodes are of base and val classes; `before` is softmax of the logits as they are.
    """

    ways: tuple[int, ...] = Field(description="Numbers of labels of the episodes.")
    episodes: int
    ece_before: float = Field(description="Expected calibration error, 15 bins, percent.")
    ece: float
    nll_before: float = Field(description="Mean negative log-likelihood, nats.")
    nll: float
    auroc: float | None = Field(None, description="How well `nearest` tells known from others.")
    known_refused: float = Field(description="Known clips called unknown, percent.")


class ShotRow(_Strict):
    """What holds for tasks of so many clips a label."""

    shots: int = Field(ge=1, description="Clips of each label.")
    scale: float = Field(gt=0, description="Probabilities are softmax(scale * logits).")
    threshold: float = Field(ge=-1, le=1, description="A clip with `nearest` below is unknown.")
    fit: Fit | None = Field(None, description="Null: a default that was not fitted here.")


Rows = Annotated[tuple[ShotRow, ...], Field(min_length=1)]


class CalibrationFacts(_Strict):
    """A calibration without its long vector, as it is shown.

    A label of k clips gets the row of k, interpolated over log k between rows, and the first or
    last row outside of them; a task gets the mean over its labels.
    """

    source: str = Field(description="What it was fitted on, or whose default it is.")
    centres_scores: bool = Field(
        False, description="The video score too is taken after the mean feature is subtracted."
    )
    video: Rows = Field(description="For tasks that are scored by video alone, by shots.")
    text: Rows = Field(description="For tasks in whose score text takes part, by shots.")

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        for rows in (self.video, self.text):
            shots = [row.shots for row in rows]
            if shots != sorted(set(shots)):
                raise ValueError(f"shots are {shots}; write one row a number, in order")
        return self

    def at(self, counts: Sequence[int], *, with_text: bool) -> TaskCalibration:
        """Return what holds for a task.

        Args:
            counts: Support clips of each label.
            with_text: Whether text takes part in its scores.
        """
        rows = [_at(self.text if with_text else self.video, count) for count in counts]
        return TaskCalibration(
            scale=math.fsum(scale for scale, _ in rows) / len(rows),
            threshold=math.fsum(threshold for _, threshold in rows) / len(rows),
        )


class Calibration(CalibrationFacts):
    """All that turns the scores of one set of weights into probabilities and `unknown`.

    Args:
        fingerprint: Of the weights that it was fitted for; None fits any, as defaults do.
        mean: Mean feature [E] of the base classes, which `nearest` is taken after; None takes the
            mean of the task's own labels.
    """

    format: Literal["kshot-calibration-1"] = FORMAT
    fingerprint: str | None = None
    mean: tuple[float, ...] | None = None

    @model_validator(mode="after")
    def _has_mean(self) -> Self:
        if self.centres_scores and self.mean is None:
            raise ValueError("centres_scores needs the mean feature")
        return self


def read_calibration(folder: Path, fingerprint: str, features: int) -> Calibration | None:
    """Read a folder's calibration; None where it has none.

    Args:
        folder: A checkpoint.
        fingerprint: Of its weights.
        features: E of its features.

    Raises:
        CheckpointError: It cannot be read, or belongs to other weights.
    """
    file = folder / CALIBRATION
    if not file.is_file():
        return None
    try:
        found = Calibration.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise CheckpointError(
            f"{file} is no calibration ({first_fault(error)}); run "
            "`python -m training.calibrate` again."
        ) from error
    if found.fingerprint != fingerprint:
        raise CheckpointError(
            f"{file} was fitted for weights {(found.fingerprint or 'without a name')[:12]} and "
            f"these are {fingerprint[:12]}; run `python -m training.calibrate` again, or remove it."
        )
    if found.mean is not None and len(found.mean) != features:
        raise CheckpointError(
            f"{file} has a mean feature of {len(found.mean)} numbers and features have {features}; "
            "run `python -m training.calibrate` again."
        )
    return found


def write_calibration(folder: Path, calibration: Calibration) -> None:
    """Write a folder's calibration, whole or not at all."""
    content = calibration.model_dump_json(indent=1, exclude_none=True) + "\n"
    write_file(folder / CALIBRATION, content.encode())


def _at(rows: Sequence[ShotRow], shots: int) -> tuple[float, float]:
    """Return scale and threshold at a number of shots."""
    logs = [math.log(row.shots) for row in rows]
    return (
        float(np.interp(math.log(shots), logs, [row.scale for row in rows])),
        float(np.interp(math.log(shots), logs, [row.threshold for row in rows])),
    )
