"""The losses of meta-training: by hand, and what they leave alone."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model.methods import METHODS
from model.text import StageTexts
from tests.model.golden_methods import Case, files_of
from training.meta.losses.answers import disagreement
from training.meta.losses.base_classes import global_class
from training.meta.losses.names import LOSSES, check_losses
from training.meta.losses.nearness import distance
from training.meta.losses.output import EpisodeOutput
from training.meta.losses.stages import same_stages, stage_contrast
from training.meta.recipe import FitRecipe
from training.meta.recipes.named import RECIPES

AXES = torch.eye(4)


def output(
    features_BTE: Tensor,
    classes_B: tuple[int, ...],
    text_NAE: Tensor | None,
    stages: tuple[StageTexts, ...],
    *,
    sharpness: float,
    base_text_CAE: Tensor | None = None,
) -> EpisodeOutput:
    """What a recogniser made of an episode, as far as stages are concerned."""
    ways = len(stages)
    nothing_QN = torch.zeros(1, ways)
    return EpisodeOutput(
        logits_QN=nothing_QN,
        again_QN=nothing_QN,
        video_QN=nothing_QN,
        wanted_Q=torch.zeros(1, dtype=torch.long),
        features_BTE=features_BTE,
        classes_B=classes_B,
        base_B=torch.tensor(classes_B),
        text_NAE=text_NAE,
        stages=stages,
        base_text_CAE=lambda: base_text_CAE,
        text_scale=3.0,
        edges=lambda: (),
        described=True,
        config=replace(METHODS["task_adapter_pp"], scale=sharpness),
        temperature=1.0,
        smoothing=0.0,
        frozen_BTE=lambda: features_BTE,
        start_BTE=lambda: features_BTE,
    )


def clip_of(stages: list[int]) -> torch.Tensor:
    """Frame features [8, 4] whose three windows point along axes; meeting frames are the later's.

    The windows of 7 aligned steps are 1-3, 3-5 and 5-7, so the steps 3 and 5 belong to two.
    """
    steps = [stages[0]] * 3 + [stages[1]] * 2 + [stages[2]] * 3
    return AXES[torch.tensor(steps)]


def test_the_contrast_agrees_with_a_cross_entropy_by_hand() -> None:
    text_NAE = AXES[torch.tensor([[0, 0, 0], [1, 1, 1]])]
    stages = (("a", "b", "c"), ("d", "e", "f"))
    clip = AXES[torch.tensor([0] * 8)][None]
    right = stage_contrast(output(clip, (0,), text_NAE, stages, sharpness=2.0))
    wrong = stage_contrast(output(clip, (1,), text_NAE, stages, sharpness=2.0))
    assert right.item() == pytest.approx(math.log(1 + math.exp(-2)))
    assert wrong.item() == pytest.approx(math.log(1 + math.exp(2)))


def test_a_wrong_order_costs_although_the_stages_are_the_same_in_sum() -> None:
    text_NAE = AXES[torch.tensor([[0, 1, 2], [2, 1, 0]])]
    stages = (("rises", "falls", "spins"), ("spins", "falls", "rises"))
    clip = clip_of([0, 1, 2])[None]
    right = stage_contrast(output(clip, (0,), text_NAE, stages, sharpness=8.0))
    wrong = stage_contrast(output(clip, (1,), text_NAE, stages, sharpness=8.0))
    assert wrong > right + 2


def test_classes_whose_text_agrees_at_a_stage_are_both_right_there() -> None:
    stages = (("rises", "falls", "spins"), ("rises", "spins", "falls"))
    assert same_stages(stages).tolist() == [[[1, 1, 1], [1, 0, 0]], [[1, 0, 0], [1, 1, 1]]]
    features = torch.randn(2, 8, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    text_NAE = AXES[torch.tensor([[0, 1, 2], [0, 2, 1]])]
    stage_contrast(output(features, (0, 1), text_NAE, stages, sharpness=8.0)).backward()
    assert features.grad is not None
    assert features.grad[:, 1:3].abs().max() < 1e-6  # the first stage alone: nothing to tell
    assert features.grad[:, 4:].abs().max() > 1e-3


def test_an_episode_without_text_has_no_contrast() -> None:
    assert stage_contrast(output(torch.ones(1, 8, 4), (0,), None, (), sharpness=8.0)) == 0


@pytest.mark.parametrize("file", files_of("maclip"), ids=lambda file: file.stem)
def test_ma_clips_losses_are_those_of_our_formula(file: Path) -> None:
    """No code is public: the file pins our reading of the paper."""
    case = Case(file)
    supports, queries = (tuple(case.meta[f"{kind}_classes"]) for kind in ("support", "query"))
    features = torch.cat([case.want("support_features"), case.want("query_features")])
    text_NAE = case.inputs["text"][:, None]
    made = replace(
        output(features, supports + queries, text_NAE, (), sharpness=1.0),
        video_QN=-case.want("distances"),
        wanted_Q=torch.tensor(queries),
        text_scale=case.meta["sharpness"],
    )
    of_text = (case.want("loss_support_text") + case.want("loss_query_text")) / 2
    torch.testing.assert_close(LOSSES["class_text"](made), of_text, atol=1e-4, rtol=1e-5)
    case.close(LOSSES["video"](made), "loss_match")
    weights = RECIPES["ma_clip"].losses(described=True)
    assert weights["class_text"] == case.meta["text_share"]
    case.close(sum(weight * LOSSES[name](made) for name, weight in weights.items()), "loss")


def test_an_episode_without_text_has_no_loss_of_class_text() -> None:
    made = output(torch.ones(2, 8, 4), (0, 1), None, (), sharpness=1.0)
    assert LOSSES["class_text"](made) == 0


def test_a_recipe_names_losses_that_exist_and_each_can_be_named() -> None:
    recipe = FitRecipe(
        stages=1.0, consistency=2.0, near_frozen=3.0, near_frozen_textless=4.0,
        near_start_textless=5.0,
    )  # fmt: skip
    without_text = recipe.losses(described=False)
    named = {"query", "stages", "consistency", "near_frozen", "near_start"}
    assert without_text.keys() == named
    assert named < LOSSES.keys()
    assert (without_text["near_frozen"], without_text["near_start"]) == (7.0, 5.0)
    with_text = recipe.losses(described=True)
    assert (with_text["near_frozen"], "near_start" in with_text) == (3.0, False)
    assert FitRecipe().losses(described=True) == {"query": 1.0}
    assert FitRecipe(weights={"query": 0.0, "video": 2.0}).losses(described=True) == {"video": 2.0}


@pytest.mark.parametrize("name", RECIPES)
def test_a_named_recipe_gives_weights_to_losses_that_exist(name: str) -> None:
    check_losses(RECIPES[name])


def test_clips_are_told_from_all_training_classes_by_their_texts_by_hand() -> None:
    features_BTE = torch.tensor([[[3.0, 0.0], [0.0, 3.0]], [[2.0, 0.0], [2.0, 0.0]]])
    text_CAE = torch.tensor([[[1.0, 0.0]], [[0.0, 2.0]], [[1.0, 1.0]]])
    told = output(features_BTE, (2, 0), None, (), sharpness=1.0, base_text_CAE=text_CAE)
    half = 1.5 * 2**0.5  # norm of the first clip's mean frame, (1.5, 1.5)
    first = [1.5 / (half + 0.01), 3.0 / (2 * half + 0.01), 3.0 / (half * 2**0.5 + 0.01)]
    second = [2.0 / 2.01, 0.0, 2.0 / (2 * 2**0.5 + 0.01)]
    wanted = [
        math.log(sum(math.exp(3.0 * cosine) for cosine in row)) - 3.0 * row[right]
        for row, right in ((first, 2), (second, 0))
    ]
    assert global_class(told).item() == pytest.approx(sum(wanted) / 2, abs=1e-5)
    assert global_class(output(features_BTE, (2, 0), None, (), sharpness=1.0)) == 0


def test_views_disagree_by_the_mean_of_both_divergences_by_hand() -> None:
    one, other = torch.tensor([[0.0, 0.0]]), torch.tensor([[math.log(3.0), 0.0]])
    there = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    back = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    for views in ((one, other), (other, one)):
        assert disagreement(*views).item() == pytest.approx((there + back) / 2)
    agreed = torch.cat([one, other])
    assert disagreement(agreed, agreed + 5.0).item() == pytest.approx(0, abs=1e-6)


def test_the_distance_of_features_is_the_mean_of_one_minus_cosine_by_hand() -> None:
    features_BTE = torch.tensor([[[2.0, 0.0], [0.0, 1.0]], [[3.0, 4.0], [1.0, 0.0]]])
    wanted_BTE = torch.tensor([[[5.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [-2.0, 0.0]]])
    assert distance(features_BTE, wanted_BTE).item() == pytest.approx((0 + 1 + 0.4 + 2) / 4)
