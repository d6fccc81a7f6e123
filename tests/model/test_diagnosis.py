"""Diagnosis of a task by the features of its clips: held-out clips, copies, scenes."""

import numpy as np
import pytest
import torch

from model.diagnosis.curve import curve
from model.diagnosis.likeness import likeness
from model.diagnosis.splits import Split, fewer_shots, leave_one_out, places_of
from model.diagnosis.verdicts import verdicts, wilson
from tests.model.tiny import tiny_recognizer

T, E = 8, 24
CLASSES = tuple(label for label in range(5) for _ in range(5))
RAGGED = (0, 0, 0, 1, 2, 2)


def drawn(classes: tuple[int, ...], spread: float, seed: int = 0) -> np.ndarray:
    """Draw features around a mean of each label, that change along time."""
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(max(classes) + 1, 1, E))
    clips = means[list(classes)] + spread * rng.normal(size=(len(classes), 1, E))
    moved: np.ndarray = clips + 0.3 * rng.normal(size=(len(classes), T, E))
    return moved.astype(np.float32)


def scored(features: np.ndarray, classes: tuple[int, ...], splits: list[Split]) -> list[np.ndarray]:
    """Score held-out clips as the service does, by the core."""
    recognizer = tiny_recognizer("task_adapter")
    found = []
    for split in splits:
        scores = recognizer.score_features(
            torch.tensor(features[list(split.supports)]),
            torch.tensor([classes[place] for place in split.supports]),
            torch.tensor(features[list(split.queries)]),
            None,
        )
        found.append(scores.logits_QN.detach().numpy())
    return found


def test_each_clip_of_a_label_with_two_or_more_is_held_out_and_each_label_keeps_one() -> None:
    splits = leave_one_out(RAGGED, rounds=2)
    held = [place for split in splits for place in split.queries]
    assert {place: held.count(place) >= 2 for place in range(6)} == {
        place: place != 3 for place in range(6)
    }
    for split in splits + fewer_shots(RAGGED, asked=4):
        assert {RAGGED[place] for place in split.supports} == {0, 1, 2}
        assert not {*split.supports} & {*split.queries}


@pytest.mark.parametrize("shots", [1, 2, 3, 4])
def test_fewer_shots_are_as_many_as_said(shots: int) -> None:
    splits = [split for split in fewer_shots(CLASSES, asked=12) if split.shots == shots]
    assert len(splits) == {1: 3, 2: 4, 3: 6, 4: 12}[shots]
    for split in splits:
        kept = places_of([CLASSES[place] for place in split.supports])
        assert [len(places) for places in kept] == [shots] * 5
        assert len(split.queries) == 25 - 5 * shots


def test_nothing_is_held_out_where_every_label_has_one_clip() -> None:
    assert leave_one_out((0, 1, 2)) == []
    assert fewer_shots((0, 1, 2)) == []
    said = verdicts([], [], (0, 1, 2))
    assert said.accuracy() is None
    assert said.suspicious() == []
    assert curve([], [], (0, 1, 2)) is None


@pytest.mark.parametrize("wrong", [0, 7, 24])
def test_a_clip_under_a_wrong_label_is_the_most_suspicious(wrong: int) -> None:
    features = drawn(CLASSES, spread=0.4)
    other = (CLASSES[wrong] + 2) % 5
    given = tuple(other if place == wrong else label for place, label in enumerate(CLASSES))
    splits = leave_one_out(given)
    said = verdicts(splits, scored(features, given, splits), given)
    assert said.suspicious()[0] == wrong
    assert int(said.labels_SN[wrong].argmax()) == CLASSES[wrong]
    assert said.claimed[wrong] == 0
    assert (other, CLASSES[wrong]) in [each[:2] for each in said.confusions()]


def test_accuracy_is_the_share_of_held_out_clips_with_wilson_s_interval() -> None:
    splits = [Split((0, 2), (1, 3), 1), Split((1, 3), (0, 2), 1)]
    logits = [np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([[1.0, 0.0], [0.0, 1.0]])]
    said = verdicts(splits, logits, (0, 0, 1, 1))
    overall = said.accuracy()
    assert overall is not None
    assert (overall.value, overall.clips) == (0.75, 4)
    assert said.accuracy(1) == wilson(0.5, 2)
    assert said.confusions() == [(1, 0, 0.5)]
    known = wilson(0.5, 10)
    assert (known.low, known.high) == pytest.approx((0.2366, 0.7634), abs=1e-4)


def test_the_curve_rises_where_more_clips_help_and_is_flat_where_all_is_right() -> None:
    splits = fewer_shots(CLASSES)
    hard = drawn(CLASSES, spread=1.3)
    found = curve(splits, scored(hard, CLASSES, splits), CLASSES)
    assert found is not None
    assert [*found.measured] == [1, 2, 3, 4]
    assert found.measured[1] < found.measured[4] <= found.now <= found.one_more <= 1
    assert found.needy in range(5)
    easy = drawn(CLASSES, spread=0.05)
    found = curve(splits, scored(easy, CLASSES, splits), CLASSES)
    assert found is not None
    assert (found.measured[1], found.now, found.one_more) == (1, 1, 1)


def test_a_copy_and_a_scene_of_one_label_are_found_and_nothing_else() -> None:
    rng = np.random.default_rng(3)
    classes = (0,) * 4 + (1,) * 4
    features = 0.5 * rng.normal(size=(8, 1, E)) + rng.normal(size=(8, T, E))
    clean = likeness(features, classes)
    assert (clean.twins, clean.one_scene) == ((), ())
    scene = 3 * rng.normal(size=E)
    features[:4, 0] = scene + 0.1 * rng.normal(size=(4, E))
    found = likeness(features, classes)
    assert found.twins == ()
    assert [label for label, _ in found.one_scene] == [0]
    features[5] = features[1] + 0.05 * rng.normal(size=(T, E))
    assert [pair[:2] for pair in likeness(features, classes).twins] == [(1, 5)]
