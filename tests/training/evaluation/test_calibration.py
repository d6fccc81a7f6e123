"""Measures of probabilities by hand, and a fit that finds what answers were made with."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from model.calibration.fitted import Calibration
from model.episode import Scores
from model.recognizer import Recognizer
from tests.model.tiny import clips, tiny_recognizer
from tests.training.learners import CLASSES, SHOWN, labelled
from training.data.episodes import DrawnEpisodes, Episode
from training.evaluation.calibration import (
    Answers,
    ask,
    calibration_error,
    drawn,
    probabilities,
    report,
    separation,
    surprise,
)
from training.evaluation.examination import Layout
from training.evaluation.fitting import (
    fit_calibration,
    fitted_scale,
    mean_feature,
    surely_better,
)
from training.evaluation.scoring import EpisodeScorer

PLAN = DrawnEpisodes(ways=(2, 3, 50), shots=(1, 2, 40), queries=2, episodes=6, seed=1)


class Tokens:
    def __init__(self, recognizer: Recognizer) -> None:
        with torch.inference_mode():
            self.tokens_CTLD = recognizer.trunk(clips(CLASSES * SHOWN, seed=3))

    def tokens(self, clips: Sequence[int], draws: Sequence[int] | None = None) -> Tensor:
        assert draws is None
        return self.tokens_CTLD[list(clips)]


@pytest.fixture(scope="module")
def fitted() -> tuple[Recognizer, Calibration]:
    recognizer = tiny_recognizer("frozen", trained=False)
    source = Tokens(recognizer)
    mean_E = mean_feature(recognizer, source, labelled())
    scorer = EpisodeScorer(recognizer, source, len(labelled()))
    found = fit_calibration(recognizer, scorer, labelled(), mean_E, plan=PLAN, source="tests")
    return recognizer, found


def made(scale: float, *, episodes: int = 400) -> Answers:
    """Answers whose probabilities are softmax(scale * logits), exactly."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (episodes, 10, 4))
    shares = np.exp(scale * logits)
    shares /= shares.sum(axis=2, keepdims=True)
    truth = (rng.random((episodes, 10, 1)) > shares.cumsum(axis=2)).sum(axis=2)
    near = rng.normal(0.5, 0.1, (episodes, 10))
    return Answers(Layout(4, 1), False, logits, truth, near, near - 0.1)


def test_calibration_error_is_the_gap_of_confidence_and_accuracy() -> None:
    shares = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    truth = np.array([0, 1, 0, 0])
    assert calibration_error(shares, truth) == pytest.approx(50 * 0.4 + 50 * 0.4)
    assert calibration_error(np.array([[1.0, 0.0]]), np.array([0])) == 0


def test_surprise_is_the_mean_negative_log_likelihood() -> None:
    logits = np.array([[math.log(3), 0.0], [0.0, 0.0]])
    assert surprise(logits, np.array([0, 1]), 1.0) == pytest.approx(
        -(math.log(0.75) + math.log(0.5)) / 2
    )
    assert np.isfinite(surprise(1e6 * logits, np.array([1, 1]), 1.0))


def test_separation_counts_pairs_and_halves_ties() -> None:
    assert separation(np.array([3.0, 1.0]), np.array([2.0, 1.0])) == pytest.approx(2.5 / 4)


def test_the_scale_that_answers_were_made_with_is_found() -> None:
    answers = made(0.37)
    assert fitted_scale([answers]) == pytest.approx(0.37, rel=0.05)
    logits, truth = answers.flat()
    assert calibration_error(probabilities(logits, 0.37), truth) < 2.5


def test_a_report_has_an_interval_for_each_figure() -> None:
    found = report(made(0.37), 0.37, 0.4)
    for name in ("ece_before", "ece_after", "nll_before", "nll_after", "auroc", "known_refused"):
        value, interval = found[name]  # type: ignore[misc]
        assert 0 < interval < value, name
    assert found["nll_after"] < found["nll_before"]  # type: ignore[operator]


def test_better_means_beyond_the_interval() -> None:
    answers = made(0.37, episodes=50)
    shifted = replace(answers, logits_EQN=np.eye(4)[answers.truth_EQ])
    assert surely_better([shifted], [answers])
    assert not surely_better([answers], [answers])
    assert not surely_better([answers], [shifted])


def test_others_are_clips_of_labels_that_the_episode_lacks() -> None:
    recognizer = tiny_recognizer("frozen", trained=False)
    scorer = EpisodeScorer(recognizer, Tokens(recognizer), len(labelled()))
    episodes = drawn(labelled(), Layout(2, 1), queries=2, episodes=4, seed=0)
    (answers,) = ask(scorer, labelled(), episodes, seed=0)
    assert answers.other_EQ.shape == answers.near_EQ.shape == (4, 4)
    whole = drawn(labelled(), Layout(CLASSES, 1), queries=1, episodes=2, seed=0)
    (nobody,) = ask(scorer, labelled(), whole, seed=0)
    assert nobody.other_EQ.size == 0


def test_a_fit_has_a_row_for_each_number_of_shots_that_the_clips_allow(
    fitted: tuple[Recognizer, Calibration],
) -> None:
    recognizer, found = fitted
    assert [row.shots for row in found.video] == [1, 2]
    assert len(found.mean or ()) == recognizer.video.tower.features
    assert found.fingerprint == recognizer.fingerprint
    for row in found.video:
        assert row.fit is not None
        assert row.fit.nll <= row.fit.nll_before + 1e-3
        assert row.fit.known_refused < 20


def test_a_fit_is_the_same_again(fitted: tuple[Recognizer, Calibration]) -> None:
    recognizer, found = fitted
    source = Tokens(recognizer)
    mean_E = mean_feature(recognizer, source, labelled())
    scorer = EpisodeScorer(recognizer, source, len(labelled()))
    again = fit_calibration(recognizer, scorer, labelled(), mean_E, plan=PLAN, source="tests")
    assert again == found


class Listener(EpisodeScorer):
    """Notes the clips that are asked after the mean feature, and those asked as they are."""

    def scores(self, episodes: Sequence[Episode]) -> list[Scores]:
        asked = self.centred if self.recognizer.calibration.centres_scores else self.plain
        asked |= {clip for one in episodes for clip in one.support}
        return super().scores(episodes)

    centred: set[int]
    plain: set[int]


def test_classes_that_gave_the_mean_do_not_judge_whether_it_helps() -> None:
    recognizer = tiny_recognizer("frozen", trained=False)
    source = Tokens(recognizer)
    mean_E = mean_feature(recognizer, source, labelled())
    listener = Listener(recognizer, source, len(labelled()))
    listener.centred, listener.plain = set(), set()
    given = {clip.label for clip in labelled()[: 2 * SHOWN]}
    apart = {n for n, clip in enumerate(labelled()) if clip.label not in given}
    plan = replace(PLAN, ways=(2,), shots=(1,), episodes=40)
    found = fit_calibration(
        recognizer, listener, labelled(), mean_E, plan=plan, source="tests", mean_labels=given
    )
    judged = listener.plain if found.centres_scores else listener.centred
    assert judged == apart
    assert listener.centred | listener.plain == set(range(len(labelled())))


def test_without_other_classes_scores_stay_as_they_are() -> None:
    recognizer = tiny_recognizer("frozen", trained=False)
    source = Tokens(recognizer)
    mean_E = mean_feature(recognizer, source, labelled())
    scorer = EpisodeScorer(recognizer, source, len(labelled()))
    given = {clip.label for clip in labelled()}
    found = fit_calibration(
        recognizer, scorer, labelled(), mean_E, plan=PLAN, source="tests", mean_labels=given
    )
    assert not found.centres_scores
    assert [row.shots for row in found.video] == [1, 2]
