"""Rebuild the weights and inputs of the method cases; origin and rules: tests/golden/methods."""

import json
import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

DEFAULT = Path(__file__).parents[1] / "golden" / "methods"
GOLDEN2_DIR = Path(os.environ.get("GOLDEN2_DIR", DEFAULT))


class Case:
    """One `.npz`: weights, inputs and expected outputs of one method's modules.

    `used` counts how often a weight of the file was given to a module.
    """

    def __init__(self, file: Path) -> None:
        with np.load(file, allow_pickle=False) as arrays:
            self.arrays = {name: arrays[name] for name in arrays.files}
        self.meta: dict[str, Any] = json.loads(str(self.arrays.pop("meta")))
        self.name = str(self.meta["case"])
        self.spec = {name: tuple(shape) for name, shape in self.meta["spec"].items()}
        self.used = dict.fromkeys(self.spec, 0)
        noise = np.random.RandomState(self.meta["seed"])
        self.inputs = {
            name: torch.from_numpy(scale * noise.standard_normal(shape)).float()
            for name, shape, scale in self.meta["inputs"]
        }

    def weight(self, name: str) -> Tensor:
        """Return the weight of that name, and count it as used."""
        shape = self.spec[name]
        self.used[name] += 1
        if name in self.meta["values"]:
            return torch.tensor(self.meta["values"][name]).float().reshape(shape)
        noise = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
        if name in self.meta["ones"]:
            return torch.from_numpy(1 + 0.1 * noise).float()
        scale = np.sqrt(np.prod(shape[1:])) if len(shape) > 1 else 4
        return torch.from_numpy(noise / scale).float()

    @torch.no_grad()
    def fill(self, module: nn.Module, names: dict[str, str], kept: Iterable[str] = ()) -> None:
        """Give a module the weights of the file.

        Args:
            module: All of its parameters are filled.
            names: Of the file, by the name of a parameter of the module.
            kept: Parameters of the module that the file does not know.
        """
        own = dict(module.named_parameters())
        assert own.keys() - set(kept) == names.keys()
        for ours, theirs in names.items():
            value = self.weight(theirs)
            assert value.numel() == own[ours].numel(), (ours, theirs)
            own[ours].copy_(value.reshape(own[ours].shape))

    def assert_all_used(self, but: str = "") -> None:
        """Check that each weight was used once, but those whose name begins with `but`."""
        counts = {n: c for n, c in self.used.items() if not (but and n.startswith(but))}
        assert set(counts.values()) <= {1}, counts

    def want(self, name: str) -> Tensor:
        """Return an expected output, or an input of integers."""
        return torch.from_numpy(self.arrays[name])

    def close(self, got: Tensor, name: str) -> None:
        """Check an output against the file."""
        torch.testing.assert_close(got, self.want(name), atol=1e-4, rtol=1e-5)


def files_of(kind: str) -> list[Path]:
    """List the files of a kind of case: `clipfsar.npz`, and `clipfsar_2.npz` if it is there."""
    return [file for file in sorted(GOLDEN2_DIR.glob("*.npz")) if kind_of(file).startswith(kind)]


def kind_of(file: Path) -> str:
    """Read the name of a case."""
    with np.load(file, allow_pickle=False) as arrays:
        return str(json.loads(str(arrays["meta"]))["case"])
