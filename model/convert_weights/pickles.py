"""Pickles of weights: their tensors are read, and nothing of the pickle is run."""

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from model.errors import BackboneError
from model.files import write_file

NESTED = (
    "state_dict",
    "model_state_dict",
    "model",
    "module",
    "state",
)  # where savers put the tensors
WRAPPED = "module."  # what training on several devices puts in front of every name


def convert(file: Path, out: Path) -> int:
    """Convert one file; return how many tensors it holds.

    Raises:
        BackboneError: It cannot be read, holds more than tensors, or `out` cannot be written.
    """
    tensors = tensors_of(file)
    try:
        write_file(out, save(tensors))
    except OSError as error:
        raise BackboneError(f"{out} cannot be written ({error.strerror}); give another.") from error
    return len(tensors)


def tensors_of(file: Path) -> dict[str, Tensor]:
    """Read the tensors of a pickle that torch.save wrote.

    Raises:
        BackboneError: It cannot be read, or holds more than tensors.
    """
    try:
        content: Any = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise BackboneError(
            f"{file} cannot be read ({error.strerror}); name another file."
        ) from error
    except UnpicklingError as error:  # torch's sentences name its own options
        raise BackboneError(
            f"{file} cannot be read as weights alone, since it holds more than tensors, or is no "
            "pickle; give a state dict that torch.save wrote, or take the safetensors file that "
            "most publishers have beside it."
        ) from error
    except Exception as error:  # torch raises pickle, zip and runtime errors here
        reason, *_more = str(error).splitlines() or ["no more is said"]  # of an empty file
        raise BackboneError(
            f"{file} cannot be read as weights alone ({type(error).__name__}: "
            f"{reason[:120]}); give a state dict that torch.save wrote, or take the "
            "safetensors file that most publishers have beside it."
        ) from error
    while isinstance(content, dict) and (
        inner := [key for key in NESTED if isinstance(content.get(key), dict)]
    ):
        content = content[inner[0]]
    if not isinstance(content, dict) or not all(isinstance(t, Tensor) for t in content.values()):
        raise BackboneError(f"{file} holds no state dict; give one that torch.save wrote.")
    wrapped = all(name.startswith(WRAPPED) for name in content)
    return {
        name.removeprefix(WRAPPED) if wrapped else name: tensor.clone().contiguous()
        for name, tensor in content.items()
    }
