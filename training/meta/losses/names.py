"""The losses of meta-training, by the names that `FitRecipe.losses` gives weights to.

A further loss is a function of an `EpisodeOutput`, an entry here, and a weight in the recipe.
"""

from collections.abc import Callable, Mapping

from torch import Tensor

from training.meta.losses.answers import consistency, query_cross_entropy
from training.meta.losses.nearness import near_frozen, near_start
from training.meta.losses.output import EpisodeOutput
from training.meta.losses.stages import stage_contrast

LOSSES: Mapping[str, Callable[[EpisodeOutput], Tensor]] = {
    "query": query_cross_entropy,
    "stages": stage_contrast,
    "consistency": consistency,
    "near_frozen": near_frozen,
    "near_start": near_start,
}
