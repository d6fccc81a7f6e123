"""Weights files of backbones: safetensors or npz, loaded exactly or not at all; no pickle."""

from collections.abc import Collection, Mapping
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from model.backbones.sources import refuse_pickle
from model.errors import BackboneError

# What a file that is torn, damaged or of another kind raises, of safetensors and of numpy.
UNREADABLE = (OSError, EOFError, ValueError, TypeError, BadZipFile, SafetensorError)


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Read a safetensors or npz file.

    Raises:
        BackboneError: No such file, or another format.
    """
    refuse_pickle(file)
    try:
        if file.suffix == ".npz":
            with file.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
                return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        return dict(load_file(file))
    except UNREADABLE as error:
        raise BackboneError(
            f"{file} cannot be read as safetensors or npz ({error}); name another file."
        ) from error


def load_exactly(
    module: nn.Module, tensors: Mapping[str, Tensor], file: Path, ignored: Collection[str] = ()
) -> None:
    """Give a module the tensors of a file: all that it has, and no others.

    Args:
        module: Its weights are replaced.
        tensors: By name.
        file: Where they are from, for the error.
        ignored: Names of the file that the module may lack.

    Raises:
        BackboneError: A tensor is missing, extra or of another shape.
    """
    want = module.state_dict()
    own = {name: tensor for name, tensor in tensors.items() if name not in ignored}
    if differing := misfits(want, own):
        raise BackboneError(
            f"{file} does not fit the backbone: {listed(differing)} missing, extra or of "
            "another shape; give the weights of the backbone that is named."
        )
    module.load_state_dict(own)


def misfits(want: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """Name the tensors that are missing, extra or of another shape."""
    return sorted(
        name
        for name in want.keys() | found.keys()
        if name not in want or name not in found or want[name].shape != found[name].shape
    )


def listed(names: list[str]) -> str:
    """Name the first three, and how many more there are."""
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return shown or "[]"
