"""Levels of a tower: its maps at four depths, for parts that read more than the end.

Dimensions: B frames, L tokens, P patches, D width, S side of the grid of patches.
"""

import math
from collections.abc import Sequence

from torch import Tensor

from model.errors import MethodError
from model.slots import Block

LEVELS = 4


class PatchLevels:
    """Levels of a ViT: its patches after each quarter of its blocks."""

    staged = False
    width: int
    prefix_tokens: int
    blocks: Sequence[Block]

    @property
    def levels(self) -> Sequence[int]:
        """How many blocks stand below each."""
        return level_places(len(self.blocks))

    @property
    def level_widths(self) -> Sequence[int]:
        """Channels of each."""
        return (self.width,) * LEVELS

    def map(self, tokens_BLD: Tensor) -> Tensor:
        """Lay the patches out as maps [B, D, S, S]."""
        return square_map(tokens_BLD[:, self.prefix_tokens :])


def level_places(blocks: int) -> tuple[int, ...]:
    """Return how many of a ViT's blocks stand below each level: 3, 6, 9 and 12 of twelve."""
    return tuple(math.ceil(blocks * level / LEVELS) for level in range(1, LEVELS + 1))


def square_map(patches_BPD: Tensor) -> Tensor:
    """Lay patches out as maps [B, D, S, S].

    Raises:
        MethodError: They are no square grid.
    """
    count = patches_BPD.shape[1]
    side = math.isqrt(count)
    if side * side != count:
        raise MethodError(
            f"Maps need a square grid of patches, and {count} patches are none; let training look "
            "at all patches (patches=1)."
        )
    return patches_BPD.transpose(1, 2).unflatten(2, (side, side))
