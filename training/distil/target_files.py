"""Views with the teacher's answers on disk: one array a draw, of rows that are whole or not there.

    recipe.json      what the rows are made of; a folder belongs to one such list
    reading.npz      the teacher's last two layers
    draw_000.npy     complete
    draw_001.part    in progress, with its space reserved
    draw_001.marks   one byte a finished row of the part

A student may read a draw while it is being written: rows that are marked have reached the disk.
"""

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from model.backbones.weights import read_tensors
from training.distil.teacher import CLASSES, FEATURES, GRID, HIDDEN, INNER, INNER_GRID, Reading
from training.errors import InputError
from training.features.token_parts import DrawPart, disk_errors, reserve
from training.run_folder import claim_folder, write_aside

HEADER, READING = "recipe.json", "reading.npz"


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of one draw that can be read, and which those are."""

    rows: np.memmap[Any, np.dtype[Any]]
    done: NDArray[np.int64]


def row_type(frames: int, side: int) -> np.dtype[Any]:
    """Return what a row holds: the student's frames, and the teacher's answer in half precision."""
    return np.dtype(
        [
            ("frames", np.uint8, (frames, side, side, 3)),
            ("inner", np.float16, (frames, INNER_GRID * INNER_GRID, INNER)),
            ("maps", np.float16, (frames, GRID * GRID, FEATURES)),
            ("hidden", np.float16, (HIDDEN,)),
            ("logits", np.float16, (CLASSES,)),
        ]
    )


class TargetFiles:
    """The folder of one set of targets.

    Args:
        folder: Of the files.
        names: Of the sources, in order; a row each.
        counts: Of the sources of each kind, in order: clips, pictures, synthetic.
        frames: T.
        side: Pixels of the student's frames.
    """

    def __init__(
        self,
        folder: Path,
        names: Sequence[str],
        counts: Mapping[str, int],
        frames: int,
        side: int,
    ) -> None:
        self.folder, self.names, self.counts = folder, tuple(names), dict(counts)
        ends = np.cumsum(list(counts.values())).tolist()
        starts = [end - count for end, count in zip(ends, counts.values(), strict=True)]
        self.kinds = dict(zip(counts, zip(starts, ends, strict=True), strict=True))
        self.frames, self.side = frames, side
        self.type = row_type(frames, side)

    @classmethod
    def opened(cls, folder: Path) -> "TargetFiles":
        """Open what `claim` made.

        Raises:
            InputError: It made nothing there.
        """
        try:
            header = json.loads((folder / HEADER).read_text())
            return cls(folder, header["names"], header["counts"], header["frames"], header["side"])
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"{folder} holds no targets ({error}); make them with training.distil.targets."
            ) from error

    def claim(self, origin: dict[str, Any]) -> None:
        """Write the header, or check that the folder has this one.

        Raises:
            InputError: It has another, or cannot be written.
        """
        own: dict[str, Any] = {"frames": self.frames, "side": self.side, "counts": self.counts}
        own["names"] = list(self.names)
        claim_folder(self.folder, {**own, **origin})

    def left_out(self) -> list[str]:
        """Name the labels that are in no row."""
        labels: list[str] = json.loads((self.folder / HEADER).read_text())["leave_out"]
        return labels

    def save_reading(self, reading: Reading) -> None:
        """Keep the teacher's last layers beside its answers."""
        content = io.BytesIO()
        np.savez(content, **{name: value.numpy() for name, value in asdict(reading).items()})
        write_aside(self.folder / READING, content.getvalue())

    def reading(self) -> Reading:
        """Return the teacher's last layers."""
        tensors = read_tensors(self.folder / READING)
        return Reading(**tensors)

    def part(self, draw: int) -> DrawPart | None:
        """Begin a draw, or go on with it; None where it is complete.

        Raises:
            InputError: The disk does not hold it.
        """
        data, marks, complete = self._files(draw)
        if complete.is_file():
            return None
        with disk_errors(self.folder):
            if not (data.is_file() and marks.is_file()):
                reserve(data, marks, (len(self.names),), self.type)
            return DrawPart(data, marks, complete, open_memmap(data, "r"))

    def draws(self) -> list[int]:
        """Name the draws that were begun."""
        found = {
            file.stem for kind in ("npy", "part") for file in self.folder.glob(f"draw_*.{kind}")
        }
        return sorted(int(stem.removeprefix("draw_")) for stem in found)

    def rows(self, draw: int) -> Rows:
        """Map a draw into memory, read-only, as far as it is finished."""
        data, marks, complete = self._files(draw)
        if not complete.is_file():
            try:
                done = np.frombuffer(marks.read_bytes(), np.uint8)
                return Rows(open_memmap(data, "r"), np.flatnonzero(done))
            except FileNotFoundError:
                pass  # it was completed between the two looks
        rows = open_memmap(complete, "r")
        return Rows(rows, np.arange(len(rows)))

    def draw_bytes(self) -> int:
        """Return the size of one draw."""
        return math.prod((len(self.names), self.type.itemsize))

    def _files(self, draw: int) -> tuple[Path, Path, Path]:
        base = self.folder / f"draw_{draw:03d}"
        return base.with_suffix(".part"), base.with_suffix(".marks"), base.with_suffix(".npy")
