"""Methods that are trained by losses of their own: what these reach."""

from dataclasses import replace

import pytest

from tests.model.tiny import TOWERS, WORDS
from tests.training.learners import RECIPE, tiny_learner
from training.meta.recipes.named import RECIPES


@pytest.mark.parametrize("preset", ["ma_clip", "gghm"])
def test_a_methods_own_losses_reach_what_learns_and_nothing_else(preset: str) -> None:
    weights = RECIPES[preset].weights
    recipe = replace(RECIPE, weights=weights, text_dropout=0.0, dropout=0.0)
    assert TOWERS.text is not None
    words = tuple(sorted({*WORDS, "a", "of", "photo"}))  # those of the prompt, too
    learner = tiny_learner(
        recipe,
        preset=preset,
        query_context="none",
        tune="adapters",
        backbone=replace(TOWERS, text=replace(TOWERS.text, words=words)),
    )
    learner.loss(0).backward()
    named = dict(learner.recognizer.named_parameters())
    reached = {name for name, parameter in named.items() if parameter.grad is not None}
    in_trunk = {"video.temporal_embedding"}  # which these tokens hold already
    assert reached == learner.trained.keys() - in_trunk
    assert not any(".tower." in name for name in reached)
    whole = learner.loss(1)
    for name, weight in weights.items():
        without = replace(learner.recipe, weights=weights | {name: 0.0})
        learner.recipe = without
        assert (learner.loss(1) != whole) == bool(weight), name
        learner.recipe = recipe
