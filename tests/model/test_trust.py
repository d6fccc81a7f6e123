"""Trust in a task's text: what its supports say of it, and how it counts."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from model.config.fusion import TrustFusion
from model.config.matching import OtamMatcher
from model.diagnosis.splits import leave_one_out
from model.episode import EncodedSupport
from model.errors import EpisodeError, MethodError
from model.matching.trust import OCTAVES, STEP, joined_trust, text_trust, trusted
from model.passes.kept_support import from_bytes, to_bytes
from model.recognizer import Recognizer
from tests.model.tiny import LABELS, clips, tiny_recognizer, tiny_text

EXPECTED, DOUBT = 16.0, 1.0
CLASSES = torch.tensor([0, 0, 1, 1, 2, 2])
NOTHING = torch.zeros(6, 3)


def weight(video_SN: Tensor, text_SN: Tensor, classes_S: Tensor = CLASSES) -> float:
    """Return what text weighs; it is the same for every class."""
    found = text_trust(video_SN, text_SN, classes_S, EXPECTED, DOUBT)
    assert torch.all(found.weight_N == found.weight_N[0])
    return float(found.weight_N[0])


def naming(strength: float) -> Tensor:
    """Return text scores that name each support, or with a negative strength never do."""
    return 0.3 + strength * F.one_hot(CLASSES).float()


def trust_recognizer(**changes: object) -> Recognizer:
    return tiny_recognizer("frozen", fusion=TrustFusion(), **changes)


def task(recognizer: Recognizer, classes: list[int], seed: int = 1) -> EncodedSupport:
    text = tiny_text(recognizer, LABELS[: max(classes) + 1])
    return recognizer.encode_support(
        recognizer.trunk(clips(len(classes), seed=seed)), classes, text
    )


# The weight


def test_a_text_that_names_the_supports_weighs_more_and_one_that_misleads_less() -> None:
    assert weight(NOTHING, naming(0.2)) > 1.3 * EXPECTED
    assert weight(NOTHING, naming(-0.2)) < EXPECTED / 4


def test_a_text_that_says_the_same_of_all_classes_keeps_the_expected_weight() -> None:
    assert weight(NOTHING, torch.full((6, 3), 0.4)) == pytest.approx(EXPECTED, rel=1e-3)


def test_a_text_that_says_what_the_video_says_already_does_not_gain() -> None:
    sure = 30.0 * F.one_hot(CLASSES).float()
    assert weight(sure, naming(0.2)) < weight(NOTHING, naming(0.2))
    assert weight(sure, naming(0.2)) == pytest.approx(EXPECTED, rel=0.02)


def test_the_weight_is_the_mean_of_its_logarithm_after_the_supports_answered() -> None:
    rng = np.random.default_rng(3)
    video, text = rng.normal(size=(6, 3)), rng.normal(size=(6, 3)) / 10
    classes = CLASSES.numpy()
    level = np.mean([text[classes == one].mean(axis=0) for one in range(3)], axis=0)
    octaves = np.arange(OCTAVES[0], OCTAVES[1] + STEP, STEP)
    log = []
    for octave in octaves:
        logits = video + EXPECTED * 2**octave * (text - level)
        of_own = logits[np.arange(6), classes] - np.log(np.exp(logits).sum(axis=1))
        log.append(of_own.sum() - octave**2 / 2)
    likely = np.exp(np.array(log) - max(log))
    wanted = EXPECTED * 2 ** (likely @ octaves / likely.sum())
    found = text_trust(torch.tensor(video), torch.tensor(text), CLASSES, EXPECTED, DOUBT)
    np.testing.assert_allclose(found.weight_N, [wanted] * 3, rtol=1e-6)
    np.testing.assert_allclose(found.level_N, level, rtol=1e-6)


@given(st.integers(0, 2**32 - 1), st.floats(-0.5, 0.5))
def test_what_a_text_says_of_every_clip_does_not_count(seed: int, more: float) -> None:
    """A label whose text is near to all clips gains nothing by it."""
    torch.manual_seed(seed)
    video_SN, text_SN = torch.randn(6, 3), 0.1 * torch.randn(6, 3)
    query_QN = 0.1 * torch.randn(4, 3)
    shifted = torch.tensor([more, 0.0, 0.0])
    plain = trusted(query_QN, text_trust(video_SN, text_SN, CLASSES, EXPECTED, DOUBT))
    moved = text_trust(video_SN, text_SN + shifted, CLASSES, EXPECTED, DOUBT)
    torch.testing.assert_close(trusted(query_QN + shifted, moved), plain, atol=1e-3, rtol=1e-3)


@given(st.permutations(range(3)), st.integers(0, 2**32 - 1))
def test_the_order_of_classes_and_of_supports_does_not_count(order: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    video_SN, text_SN = torch.randn(6, 3), 0.1 * torch.randn(6, 3)
    found = text_trust(video_SN, text_SN, CLASSES, EXPECTED, DOUBT)
    place = torch.tensor(order)
    other = torch.randperm(6)
    classes_S = place.argsort()[CLASSES][other]
    again = text_trust(
        video_SN[other][:, place], text_SN[other][:, place], classes_S, EXPECTED, DOUBT
    )
    torch.testing.assert_close(again.weight_N, found.weight_N[place], atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(again.level_N, found.level_N[place])


def test_a_label_of_many_clips_does_not_set_the_level_of_all() -> None:
    text_SN = torch.tensor([[0.9, 0.1]] * 9 + [[0.1, 0.9]])
    classes_S = torch.tensor([0] * 9 + [1])
    found = text_trust(torch.zeros(10, 2), text_SN, classes_S, EXPECTED, DOUBT)
    torch.testing.assert_close(found.level_N, torch.tensor([0.5, 0.5]))


def test_where_nothing_asks_text_counts_as_it_is() -> None:
    text_QN = torch.randn(2, 3)
    assert trusted(text_QN, None) is text_QN
    assert joined_trust([None, None]) is None


# In a method


@torch.inference_mode()
def test_the_score_is_video_and_text_above_its_level_by_hand() -> None:
    recognizer = trust_recognizer(scale=5.0)
    made = task(recognizer, [0, 0, 1, 1, 2])
    trust = made.classes.trust
    assert trust is not None
    query_QTE = recognizer.encode_query(recognizer.trunk(clips(1, seed=5)), [made])
    (score,) = recognizer.match(query_QTE, [made])
    assert score.text_N is not None
    wanted = 6 * torch.tensor(score.video_N) + trust.weight_N * (
        torch.tensor(score.text_N) - trust.level_N
    )
    torch.testing.assert_close(torch.tensor(score.logits_N), wanted)
    bare = recognizer.encode_support(recognizer.trunk(clips(5, seed=1)), [0, 0, 1, 1, 2], None)
    assert bare.classes.trust is None
    (alone,) = recognizer.match(query_QTE, [bare])
    torch.testing.assert_close(torch.tensor(alone.logits_N), 5 * torch.tensor(alone.video_N))


@torch.inference_mode()
def test_a_support_is_compared_with_the_other_supports_and_never_with_itself() -> None:
    recognizer = trust_recognizer()
    labels = [0, 0, 1, 1, 2]
    text_NAE = tiny_text(recognizer, LABELS[:3])
    features_STE = recognizer.support_features(recognizer.trunk(clips(5, seed=1)))
    video_SN = torch.zeros(5, 3)  # the fifth is alone in its class: nothing says what it is
    for split in leave_one_out(labels, rounds=1):
        for place in split.queries:
            for label in range(3):
                rest = [clip for clip in split.supports if labels[clip] == label]
                mean_E = features_STE[rest].mean(dim=(0, 1))
                video_SN[place, label] = F.cosine_similarity(
                    features_STE[place].mean(dim=0), mean_E, dim=0
                )
    root = math.sqrt(5 / 3)
    text_SN = recognizer.text_head(features_STE, text_NAE)[0]
    wanted = text_trust(6 * root * video_SN, text_SN, torch.tensor(labels), EXPECTED, DOUBT)
    found = recognizer.support_of(features_STE, labels, text_NAE).classes.trust
    assert found is not None
    assert bool(video_SN[:4].all())
    torch.testing.assert_close(found.level_N, wanted.level_N)
    torch.testing.assert_close(found.weight_N, wanted.weight_N / root)


@torch.inference_mode()
def test_tasks_of_a_mixed_batch_are_scored_as_alone() -> None:
    recognizer = trust_recognizer()
    assert not recognizer.per_task
    tasks = [task(recognizer, [0, 0, 1, 1, 2]), task(recognizer, [0, 1], seed=2)]
    queries = recognizer.trunk(clips(4, seed=3))
    together = recognizer.match(recognizer.encode_query(queries, tasks * 2), tasks * 2)
    for place, score in enumerate(together):
        own = [tasks[place % 2]]
        (alone,) = recognizer.match(recognizer.encode_query(queries[place : place + 1], own), own)
        assert score.logits_N == pytest.approx(alone.logits_N, abs=1e-4)


@torch.inference_mode()
def test_other_text_asks_the_supports_again() -> None:
    recognizer = trust_recognizer()
    assert recognizer.needs_text
    made = task(recognizer, [0, 0, 1, 1])
    with pytest.raises(EpisodeError, match="encode the supports again with the new text"):
        made.with_text(tiny_text(recognizer, LABELS[2:4]))


@torch.inference_mode()
def test_trust_is_kept_with_the_supports() -> None:
    made = task(trust_recognizer(), [0, 0, 1, 1])
    kept = from_bytes(to_bytes(made), torch.device("cpu")).classes.trust
    assert made.classes.trust is not None
    assert kept is not None
    assert torch.equal(kept.level_N, made.classes.trust.level_N)
    assert torch.equal(kept.weight_N, made.classes.trust.weight_N)


def test_a_distance_is_refused() -> None:
    with pytest.raises(MethodError, match="gives distances"):
        trust_recognizer(matcher=OtamMatcher())
