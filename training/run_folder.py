"""A run's folder belongs to one recipe; its files are whole or not there."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.errors import InputError

RECIPE = "recipe.json"


def claim_folder(out: Path, recipe: Mapping[str, Any]) -> None:
    """Write the recipe into a new folder, or check that the folder has this recipe.

    Raises:
        InputError: The folder belongs to another recipe, or cannot be written.
    """
    wanted = json.loads(json.dumps(recipe))
    try:
        out.mkdir(parents=True, exist_ok=True)
        file = out / RECIPE
        if not file.is_file():
            file.write_text(json.dumps(wanted, indent=2) + "\n")
            return
        found = json.loads(file.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise InputError(f"{out} cannot be used ({error}); give another --out.") from error
    for key, value in wanted.items():
        if found.get(key) != value:
            raise InputError(
                f"{out} belongs to a recipe with another {key!r}; give the same arguments or "
                "another --out."
            )


def write_aside(file: Path, data: bytes) -> None:
    """Write a file so that it is whole or, after an error, as it was before.

    Raises:
        InputError: It cannot be written, as on a full disk.
    """
    aside = file.with_name(f".{file.name}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with aside.open("wb") as out:
                out.write(data)
                out.flush()
                os.fsync(out.fileno())
            aside.replace(file)
        finally:
            aside.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"{file} cannot be written ({error.strerror}); free its disk or give another place."
        ) from error
