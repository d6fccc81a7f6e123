"""The losses of meta-training, by the names that `FitRecipe.losses` gives weights to.

A further loss is a function of an `EpisodeOutput` and an entry in `LOSSES`; one that learns
something of its own is a module, made for a recogniser and the classes of training, and an entry
in `LEARNED`. The recipe's `weights` then name it.
"""

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn

from model.recognizer import Recognizer
from training.errors import InputError
from training.meta.losses.answers import (
    class_text,
    consistency,
    query_cross_entropy,
    video_cross_entropy,
)
from training.meta.losses.base_classes import base_classifier, global_class, visual_classifier
from training.meta.losses.contrast import LearnedContrast, contrast, text_class, text_class_double
from training.meta.losses.edges import graph_edges
from training.meta.losses.masked_words import masked_words
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
    "contrast": contrast,
    "text_class": text_class,
    "text_class_double": text_class_double,
}

LEARNED: Mapping[str, Callable[[Recognizer, Sequence[str]], nn.Module]] = {
    "base_class": base_classifier,
    "contrast_learned": lambda recognizer, labels: LearnedContrast(),  # noqa: ARG005
    "visual_class": visual_classifier,
    "masked_words": masked_words,
}


def check_losses(recipe: FitRecipe) -> None:
    """Refuse a recipe that names a loss which does not exist, with an InputError."""
    known = LOSSES.keys() | LEARNED.keys()
    if unknown := sorted(recipe.weights.keys() - known):
        raise InputError(f"There is no loss {unknown[0]!r}; choose of {', '.join(sorted(known))}.")


def learned_losses(
    recipe: FitRecipe, recognizer: Recognizer, labels: Sequence[str]
) -> nn.ModuleDict:
    """Make the losses of a recipe that learn something, in their start.

    Args:
        recipe: Names them.
        recognizer: What else learns.
        labels: Of training.
    """
    wanted = [name for name in LEARNED if recipe.weights.get(name)]
    return nn.ModuleDict({name: LEARNED[name](recognizer, labels) for name in wanted})
