"""Batches of a student: some frames of many pictures, and all frames of some clips.

The frames of a moving picture are nearly alike, so that a few of them teach what the picture shows
at a fraction of the cost; motion is taught by real and synthetic clips, whole.

Dimensions: B clips, T frames, S pixels, C colours or channels, P cells of a map, row by row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.distil.target_files import Rows, TargetFiles
from training.errors import InputError


@dataclass(frozen=True, slots=True)
class Batch:
    """Clips, or parts of clips, and what the teacher says of them."""

    frames_BTSSC: Tensor  # uint8
    inner_BTPC: Tensor
    maps_BTPC: Tensor
    hidden_BC: Tensor  # of the whole clip, of which a part may be seen


@dataclass(frozen=True, slots=True)
class Pick:
    """Which row of which draw is seen, from which frame on, and whether left and right change."""

    draw: int
    row: int
    start: int
    mirror: bool


class Batches:
    """Draws batches from the rows that are finished.

    A batch follows from the seed, its number, and the rows that were finished when `refresh` was
    last called: a run is repeated to the bit when its targets were complete at its start.

    Args:
        files: The targets, complete or in progress.
        seed: Of all batches.
    """

    def __init__(self, files: TargetFiles, seed: int) -> None:
        self.files, self.seed = files, seed
        self.draws: dict[int, Rows] = {}
        self.refresh()

    def refresh(self) -> None:
        """Look again which rows are finished.

        Raises:
            InputError: None is.
        """
        self.draws = {draw: self.files.rows(draw) for draw in self.files.draws()}
        if not self.known():
            raise InputError(f"{self.files.folder} holds no finished targets yet; wait for some.")

    def known(self) -> int:
        """Return how many rows can be read, over all draws."""
        return sum(len(rows.done) for rows in self.draws.values())

    def hidden(self, most: int) -> Tensor:
        """Return the hidden layers of at most so many rows, spread over the first draw."""
        rows = self.draws[min(self.draws)]
        spread = rows.done[
            np.linspace(0, len(rows.done) - 1, min(most, len(rows.done))).astype(int)
        ]
        return torch.from_numpy(np.stack([rows.rows[row]["hidden"] for row in spread])).float()

    def draw(self, kinds: Sequence[str], count: int, frames: int, number: int) -> Batch:
        """Draw a batch of kinds of sources, each kind with the same chance.

        Args:
            kinds: Of `TargetFiles.kinds`; a kind without finished rows is passed over.
            count: B.
            frames: T consecutive ones, from a place that is drawn.
            number: Of the batch.
        """
        rng = np.random.default_rng([self.seed, number, *map(ord, "".join(kinds))])
        pools = [pool for kind in kinds if len(pool := self._pool(kind))]
        if not pools:
            raise InputError(f"There are no finished targets of {' or '.join(kinds)} yet.")
        picks = []
        for _ in range(count):
            pool = pools[rng.integers(len(pools))]
            draw, row = pool[rng.integers(len(pool))]
            start = rng.integers(self.files.frames - frames + 1)
            picks.append(Pick(int(draw), int(row), int(start), bool(rng.integers(2))))
        return self.read(picks, frames)

    def read(self, picks: Sequence[Pick], frames: int) -> Batch:
        """Read the rows of picks."""
        frames_BTSSC, inner_BTPC, maps_BTPC = (
            torch.from_numpy(np.stack([self._cut(pick, frames, part) for pick in picks]))
            for part in ("frames", "inner", "maps")
        )
        hidden = np.stack([self.draws[pick.draw].rows[pick.row]["hidden"] for pick in picks])
        return Batch(frames_BTSSC, inner_BTPC, maps_BTPC, torch.from_numpy(hidden).float())

    def _pool(self, kind: str) -> NDArray[np.int64]:
        """Return the pairs of draw and row of a kind that can be read."""
        first, last = self.files.kinds[kind]
        return np.concatenate([
            np.stack(np.broadcast_arrays(draw, within), axis=1)
            for draw, rows in self.draws.items()
            for within in [rows.done[(rows.done >= first) & (rows.done < last)]]
        ])  # fmt: skip

    def _cut(self, pick: Pick, frames: int, part: str) -> NDArray[Any]:
        found = self.draws[pick.draw].rows[pick.row][part][pick.start : pick.start + frames]
        if not pick.mirror:
            return found
        if part == "frames":
            return found[:, :, ::-1]
        side = round(found.shape[1] ** 0.5)
        grid = found.reshape(frames, side, side, -1)
        return grid[:, :, ::-1].reshape(found.shape)
