"""A run's folder belongs to one recipe; its files are whole or not there."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model.files import write_file
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


def write_state(file: Path, state: object) -> None:
    """Write what `torch.load` reads with `weights_only`; errors as of `write_aside`."""
    import torch  # here, because options of commands are read without it

    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_aside(file, buffer.getvalue())


def write_aside(file: Path, data: bytes) -> None:
    """Write a file as `model.files.write_file` does; an error of the disk is one sentence.

    Raises:
        InputError: It cannot be written, as on a full disk; it is then as it was before.
    """
    try:
        write_file(file, data)
    except OSError as error:
        raise InputError(
            f"{file} cannot be written ({error.strerror}); free its disk or give another place."
        ) from error
