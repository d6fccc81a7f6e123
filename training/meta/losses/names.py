"""The losses of meta-training, by the names that `FitRecipe.losses` gives weights to.

A further loss is a function of an `EpisodeOutput` and an entry in `LOSSES`; one that learns
something of its own is a module, made from the feature width and the number of training classes,
and an entry in `LEARNED`. The recipe's `weights` then name it.
"""

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from training.errors import InputError
from training.meta.losses.answers import (
    class_text,
    consistency,
    query_cross_entropy,
    video_cross_entropy,
)
from training.meta.losses.base_classes import BaseClassifier, global_class
from training.meta.losses.edges import graph_edges
from training.meta.losses.nearness import near_frozen, near_start
from training.meta.losses.output import EpisodeOutput
from training.meta.losses.stages import stage_contrast
from training.meta.recipe import FitRecipe

Loss = Callable[[EpisodeOutput], Tensor]

LOSSES: Mapping[str, Loss] = {
    "query": query_cross_entropy,
    "video": video_cross_entropy,
    "class_text": class_text,
    "graph_edges": graph_edges,
    "stages": stage_contrast,
    "consistency": consistency,
    "near_frozen": near_frozen,
    "near_start": near_start,
    "global_class": global_class,
}

LEARNED: Mapping[str, Callable[[int, int], nn.Module]] = {
    "base_class": BaseClassifier,
}


def check_losses(recipe: FitRecipe) -> None:
    """Refuse a recipe that names a loss which does not exist, with an InputError."""
    known = LOSSES.keys() | LEARNED.keys()
    if unknown := sorted(recipe.weights.keys() - known):
        raise InputError(f"There is no loss {unknown[0]!r}; choose of {', '.join(sorted(known))}.")


def learned_losses(recipe: FitRecipe, features: int, classes: int) -> nn.ModuleDict:
    """Make the losses of a recipe that learn something, in their start.

    Args:
        recipe: Names them.
        features: Width of a frame's features.
        classes: Of training.
    """
    wanted = [name for name in LEARNED if recipe.weights.get(name)]
    return nn.ModuleDict({name: LEARNED[name](features, classes) for name in wanted})
