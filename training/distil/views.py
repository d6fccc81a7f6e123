"""Batches of views, made as they are asked for: no view is seen twice.

Dimensions: B clips, T frames, C colours, S pixels.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from model.errors import ClipError
from training.distil.recipe import VideoRecipe
from training.distil.sources import Picture, RealClip, Source, SyntheticClip
from training.errors import InputError


class Views:
    """Draws batches; a batch follows from the seed and its number.

    Args:
        clips: Real ones.
        pictures: A camera moves over them.
        size: S.
        recipe: How many of each a batch has.
    """

    def __init__(
        self,
        clips: Sequence[RealClip],
        pictures: Sequence[Picture],
        size: int,
        recipe: VideoRecipe,
    ) -> None:
        self.size, self.recipe = size, recipe
        self.pools: list[tuple[Sequence[Source], int]] = [
            (pictures, recipe.pictures if pictures else 0),
            (clips, recipe.clips if clips else 0),
        ]
        if not any(count for _, count in self.pools):
            raise InputError("There is nothing to learn from; give --clips or --pictures.")

    def draw(self, number: int) -> Tensor:
        """Return pixels_BTCSS in [0, 1] of a batch, half of them mirrored.

        Raises:
            InputError: A source cannot be read.
        """
        rng = np.random.default_rng([self.recipe.seed, number])
        picked = [pool[row] for pool, n in self.pools for row in rng.integers(len(pool), size=n)]
        made = rng.integers(2**31, size=self.recipe.synthetic)
        picked += [SyntheticClip(int(one)) for one in made]
        views = []
        for source in picked:
            view_TSSC = self._read(source, number)
            views.append(view_TSSC[:, :, ::-1] if rng.integers(2) else view_TSSC)
        return torch.from_numpy(np.stack(views)).permute(0, 1, 4, 2, 3).float() / 255

    def _read(self, source: Source, number: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        recipe = self.recipe
        try:
            return source.view(recipe.frames, self.size, number + 1, recipe.seed)
        except (ClipError, OSError) as error:
            raise InputError(
                f"{source.name} cannot be read ({error}); mend or remove it."
            ) from error
