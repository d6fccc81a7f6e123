"""What training adds to a cross-entropy: by hand, and what it leaves alone."""

import math

import pytest
import torch

from model.methods import METHODS
from training.meta.losses import disagreement, same_stages, stage_contrast

CONFIG = METHODS["task_adapter_pp"]
AXES = torch.eye(4)


def clip_of(stages: list[int]) -> torch.Tensor:
    """Frame features [8, 4] whose three windows point along axes; meeting frames are the later's.

    The windows of 7 aligned steps are 1-3, 3-5 and 5-7, so the steps 3 and 5 belong to two.
    """
    steps = [stages[0]] * 3 + [stages[1]] * 2 + [stages[2]] * 3
    return AXES[torch.tensor(steps)]


def test_agrees_with_a_cross_entropy_by_hand() -> None:
    text_NAE = AXES[torch.tensor([[0, 0, 0], [1, 1, 1]])]
    same = same_stages([("a", "b", "c"), ("d", "e", "f")])
    clip = AXES[torch.tensor([0] * 8)][None]
    right = stage_contrast(clip, [0], text_NAE, same, CONFIG, sharpness=2.0)
    wrong = stage_contrast(clip, [1], text_NAE, same, CONFIG, sharpness=2.0)
    assert right.item() == pytest.approx(math.log(1 + math.exp(-2)))
    assert wrong.item() == pytest.approx(math.log(1 + math.exp(2)))


def test_a_wrong_order_costs_although_the_stages_are_the_same_in_sum() -> None:
    text_NAE = AXES[torch.tensor([[0, 1, 2], [2, 1, 0]])]
    same = same_stages([("rises", "falls", "spins"), ("spins", "falls", "rises")])
    clip = clip_of([0, 1, 2])[None]
    right = stage_contrast(clip, [0], text_NAE, same, CONFIG, sharpness=8.0)
    wrong = stage_contrast(clip, [1], text_NAE, same, CONFIG, sharpness=8.0)
    assert wrong > right + 2


def test_classes_whose_text_agrees_at_a_stage_are_both_right_there() -> None:
    same = same_stages([("rises", "falls", "spins"), ("rises", "spins", "falls")])
    assert same.tolist() == [[[1, 1, 1], [1, 0, 0]], [[1, 0, 0], [1, 1, 1]]]
    features = torch.randn(2, 8, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    text_NAE = AXES[torch.tensor([[0, 1, 2], [0, 2, 1]])]
    stage_contrast(features, [0, 1], text_NAE, same, CONFIG, sharpness=8.0).backward()
    assert features.grad is not None
    assert features.grad[:, 1:3].abs().max() < 1e-6  # the first stage alone: nothing to tell
    assert features.grad[:, 4:].abs().max() > 1e-3


def test_views_disagree_by_the_mean_of_both_divergences_by_hand() -> None:
    one, other = torch.tensor([[0.0, 0.0]]), torch.tensor([[math.log(3.0), 0.0]])
    there = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    back = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    for views in ((one, other), (other, one)):
        assert disagreement(*views).item() == pytest.approx((there + back) / 2)
    agreed = torch.cat([one, other])
    assert disagreement(agreed, agreed + 5.0).item() == pytest.approx(0, abs=1e-6)
