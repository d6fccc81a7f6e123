"""The baselines that train nothing: Tip-Adapter's cache and the ridge head."""

import math

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from model.config.fusion import SumFusion
from model.config.matching import CacheMatcher, RidgeMatcher
from model.config.method import METHOD_JSON
from model.episode import ClassSet
from model.matching.cache import Cache, unit_means
from model.matching.ridge import Ridge
from model.methods import METHODS, check_served
from model.prototypes.mean import MeanPrototypes
from tests.model.tiny import LABELS, clips, tiny_method, tiny_recognizer, tiny_text

CLASSES = torch.tensor([1, 0, 2, 1, 1, 0])  # ragged shots, unsorted


def frames(count: int, seed: int = 0) -> Tensor:
    noise = torch.Generator().manual_seed(seed)
    return torch.randn(count, 4, 5, generator=noise)


def classes_of(support_STE: Tensor, classes_S: Tensor = CLASSES) -> ClassSet:
    return MeanPrototypes(keep_shots=True)(support_STE, classes_S, None)


# Cache


def test_the_cache_is_the_mean_affinity_to_the_shots_of_a_class() -> None:
    """Shots along both axes; the query lies along the first."""
    query, across = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])
    shots = torch.stack([3 * query, across, across])[:, None].expand(3, 2, 2)
    classes = classes_of(shots, torch.tensor([0, 0, 1]))
    got = Cache(2.0)(query.expand(1, 2, 2), classes)
    torch.testing.assert_close(got, torch.tensor([[(1 + math.exp(-2)) / 2, math.exp(-2)]]))


def test_a_sharp_cache_answers_as_the_nearest_shot() -> None:
    support, query = frames(6), frames(9, seed=1)
    nearest = (unit_means(query) @ unit_means(support).T).argmax(dim=1)
    assert torch.equal(Cache(40.0)(query, classes_of(support)).argmax(dim=1), CLASSES[nearest])


@torch.inference_mode()
def test_text_adds_its_scaled_cosine_to_the_weighted_cache() -> None:
    recognizer = tiny_recognizer("tip_adapter", fusion=SumFusion(sharpness=7.0, video_weight=3.0))
    support, query = torch.randn(3, 8, 32), torch.randn(4, 8, 32)
    text_NAE = tiny_text(recognizer, LABELS[:3])
    assert text_NAE is not None
    scores = recognizer.score_features(support, torch.arange(3), query, text_NAE)
    text_NE = torch.nn.functional.normalize(text_NAE[:, 0], dim=-1)
    want_QN = 7 * unit_means(query) @ text_NE.T + 3 * scores.video_QN
    got_QN = scores.logits_QN.log_softmax(dim=-1)
    torch.testing.assert_close(got_QN, want_QN.log_softmax(dim=-1), atol=1e-4, rtol=1e-4)
    alone = recognizer.score_features(support, torch.arange(3), query, None)
    torch.testing.assert_close(alone.logits_QN, 64 * alone.video_QN)


# Ridge


def weighted_least_squares(support_STE: Tensor, query_QTE: Tensor, penalty: float) -> Tensor:
    """Solve the same problem in the space of the features, a free constant as one more feature."""
    x = torch.cat([unit_means(support_STE), torch.ones(len(support_STE), 1)], dim=1).double()
    y = torch.nn.functional.one_hot(CLASSES).double()
    weight = 1 / torch.bincount(CLASSES)[CLASSES].double()
    penalties = penalty * torch.eye(x.shape[1]).double()
    penalties[-1, -1] = 0
    solved = torch.linalg.solve(
        x.T @ (weight[:, None] * x) + penalties, x.T @ (weight[:, None] * y)
    )
    asked = torch.cat([unit_means(query_QTE), torch.ones(len(query_QTE), 1)], dim=1).double()
    return (asked @ solved).float()


@pytest.mark.parametrize("penalty", [1e-2, 1.0])
def test_ridge_is_penalised_least_squares_with_a_free_constant(penalty: float) -> None:
    support, query = frames(6), frames(4, seed=1)
    got = Ridge(penalty, 3.0)(query, classes_of(support))
    want = 3 * weighted_least_squares(support, query, penalty)
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("matcher", [Cache(5.5), Ridge(0.1, 8.0)])
def test_a_class_wins_nothing_by_more_copies_of_its_shots(matcher: torch.nn.Module) -> None:
    support, query, own = frames(3), frames(4, seed=1), torch.arange(3)
    once = matcher(query, classes_of(support, own))
    copies = torch.cat([support, support[:1], support[:1]])
    often = matcher(query, classes_of(copies, torch.cat([own, torch.tensor([0, 0])])))
    torch.testing.assert_close(often, once, atol=1e-4, rtol=1e-4)


def test_a_strong_penalty_tells_classes_apart_by_their_means() -> None:
    """Far above the features' size, weights point from the mean of all to the class's own."""
    support, query, own = frames(3), frames(4, seed=1), torch.arange(3)
    unit = unit_means(support)
    want = (unit_means(query) - unit.mean(dim=0)) @ (unit - unit.mean(dim=0)).T
    got = 1e4 * (Ridge(1e4, 1.0)(query, classes_of(support, own)) - 1 / 3)
    torch.testing.assert_close(got, want, atol=1e-2, rtol=1e-2)


# Presets


@pytest.mark.parametrize("preset", ["tip_adapter", "ridge"])
def test_baselines_train_nothing_and_are_served(preset: str) -> None:
    recognizer = tiny_recognizer(preset, trained=False)
    check_served(recognizer.config)
    assert not recognizer.trained
    assert not recognizer.transductive
    own = [part for part in recognizer.learning_modules() if list(part.parameters())]
    assert own == []


@torch.inference_mode()
def test_tasks_of_one_batch_are_fitted_apart() -> None:
    recognizer = tiny_recognizer("ridge")
    tasks = [
        recognizer.encode_support(recognizer.trunk(clips(ways, seed=ways)), range(ways), None)
        for ways in (2, 3)
    ]
    query = recognizer.trunk(clips(4, seed=9))
    features = recognizer.encode_query(query, tasks * 2)
    together = recognizer.match(features, tasks * 2)
    for place, mixed in enumerate(together):
        (alone,) = recognizer.match(features[place : place + 1], [tasks[place % 2]])
        assert mixed.logits_N == pytest.approx(alone.logits_N, abs=1e-5)


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf])
def test_numbers_that_cannot_work_are_refused(value: float) -> None:
    for matcher in (CacheMatcher(sharpness=value), RidgeMatcher(penalty=value)):
        written = METHOD_JSON.dump_json(tiny_method("frozen", matcher=matcher, fusion="video"))
        with pytest.raises(ValidationError):
            METHOD_JSON.validate_json(written)


def test_the_presets_stand_on_frozen_towers() -> None:
    for preset in ("tip_adapter", "ridge"):
        assert METHODS[preset].visual is None
        assert METHODS[preset].temporal is None
