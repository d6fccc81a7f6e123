"""What drawn tasks tell of corrections and of calibrations of their own."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.model.tiny import tiny_recognizer
from training.data.datasets import LabelledClip
from training.data.episodes import Episode, EpisodePlan, EpisodeSampler
from training.evaluation.diagnosing.correction import POOL, corrected, divided
from training.evaluation.diagnosing.judge import Judge
from training.evaluation.diagnosing.refinement import Task, refined, refined_factor

LABELS, GROUPS, CLIPS = 4, 8, 4  # of a recording


def drawn(own: int, noise: float) -> tuple[Judge, list[LabelledClip], list[Episode]]:
    """Make clips whose labels lie apart, and two tasks of the first `own` labels."""
    torch.manual_seed(0)
    clips = [
        LabelledClip(Path("x"), label, f"{label}{group}")
        for label in "abcdef"[: own + 2]
        for group in range(GROUPS)
        for _ in range(CLIPS)
    ]
    means = torch.randn(own + 2, 1, 1, 16)
    features = means + noise * torch.randn(own + 2, GROUPS * CLIPS, 8, 16)
    sampler = EpisodeSampler(clips[: own * GROUPS * CLIPS], EpisodePlan(own, 3, 2), 0)
    judge = Judge(tiny_recognizer("task_adapter"), features.flatten(0, 1))
    return judge, clips, [sampler.draw(number) for number in range(2)]


def test_answers_and_fresh_queries_are_of_other_recordings_than_supports() -> None:
    _, clips, (episode, _) = drawn(LABELS, 1.0)
    asked = divided(clips, episode, np.random.default_rng(0))
    assert len(asked.pool) == POOL
    groups = [
        {clips[clip].source_group for clip in own}
        for own in (
            episode.support,
            [clip for clip, _ in asked.pool],
            [clip for clip, _ in asked.fresh],
        )
    ]
    assert sum(map(len, groups)) == len(set.union(*groups))
    assert {own for _, own in asked.fresh} == set(range(LABELS))
    for clip, own in (*asked.pool, *asked.fresh):
        assert clips[clip].label == episode.labels[own]


def test_what_is_told_apart_already_gains_nothing_and_what_is_not_gains() -> None:
    easy = corrected(*drawn(LABELS, 0.01), seed=0)
    assert easy["before"] == easy["least certain"] == easy["by chance"] == [100.0, 0.0]
    hard = corrected(*drawn(LABELS, 8.0), seed=0)
    assert isinstance(hard["wrong, all"], list)
    assert hard["wrong, all"][0] > 10
    assert hard["least certain"] != hard["before"]


def test_a_calibration_is_compared_with_those_that_the_task_moves() -> None:
    found = refined(*drawn(LABELS, 3.0), seed=0)
    scales, thresholds = found["scales"], found["thresholds"]
    assert isinstance(scales, dict)
    assert isinstance(thresholds, dict)
    assert scales["checkpoint"]["nll_more"] == [0.0, 0.0]
    assert scales["leave-one-out, inf"]["nll_more"] != [0.0, 0.0]
    bounds = [
        thresholds[f"5 none, +{bound} at most"]["others_refused"][0] for bound in ("0.1", "inf")
    ]
    assert thresholds["checkpoint"]["others_refused"][0] <= bounds[0] <= bounds[1]


@pytest.mark.parametrize(("right", "more"), [(1.0, True), (0.25, False)])
def test_a_factor_follows_held_out_clips_as_far_as_it_may(right: float, more: bool) -> None:
    logits_QN = np.tile([2.0, 0.0, 0.0, 0.0], (40, 1))
    truth_Q = np.array([0] * int(40 * right) + [1] * (40 - int(40 * right)))
    empty = np.zeros(0)
    task = Task(empty, truth_Q, empty, empty, empty, logits_QN, truth_Q, empty, 40)
    factors = [refined_factor(task, 1.0, prior) for prior in (1e-3, 0.3, math.inf)]
    assert factors[0] == pytest.approx(1, abs=1e-3)
    assert sorted(factors, reverse=not more) == factors
    assert (factors[-1] > 1) == more
