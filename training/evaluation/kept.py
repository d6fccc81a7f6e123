"""What a comparison keeps of finished work: results beside the claim that they follow from."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.errors import InputError
from training.run_folder import write_aside


def read_result(file: Path, claim: object) -> dict[str, Any] | None:
    """Return what is finished, or None.

    Raises:
        InputError: it was made from something else, or cannot be read.
    """
    if not file.is_file():
        return None
    try:
        held: dict[str, Any] = json.loads(file.read_text())
        same = held["claim"] == claim
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} cannot be read ({error}); remove it to make it again.") from error
    if not same:
        raise InputError(
            f"{file} is of another method, recipe, evaluation, data set, weights or descriptions; "
            "give another --out, or the row another name."
        )
    return held


def write_result(file: Path, result: Mapping[str, Any]) -> None:
    """Write what is finished, whole or not at all."""
    write_aside(file, (json.dumps(result, indent=1) + "\n").encode())


def plain(value: object) -> object:
    """Return a value as JSON gives it back."""
    return json.loads(json.dumps(value))


def step_seconds(file: Path) -> float:
    """Add up the seconds of the steps in a history, of all the processes that made them."""
    with file.open() as opened:
        return sum(float(row["seconds"] or 0) for row in csv.DictReader(opened))
