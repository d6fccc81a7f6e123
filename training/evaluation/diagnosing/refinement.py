"""Whether a task's own clips, or queries that were none of it, make its calibration better.

Of each drawn task are judged, on clips of other recordings: the checkpoint's scale and threshold;
those that leave-one-out moves, held back to various degrees; and the threshold that is raised by
some queries of other labels, with various bounds. A task of K shots is held out with K - 1, so what
moves is the factor between the checkpoint's value at K - 1 and the best one there.

Dimensions: Q queries, N classes.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from model.diagnosis.splits import leave_one_out
from model.fusion import TaskCalibration
from training.data.datasets import LabelledClip
from training.data.episodes import Episode
from training.evaluation.calibration import (
    Values,
    calibration_error,
    probabilities,
    separation,
    surprise,
)
from training.evaluation.diagnosing.judge import Judge
from training.progress import progress

PRIORS = (0.1, 0.2, 0.37, 1.0, math.inf)  # deviation that the logarithm of a factor may have
SHARES = (0.25, 0.5, 1.0)  # of the way from the checkpoint's threshold to that of held-out clips
KNOWN_REFUSED = 0.05  # of held-out clips, as the checkpoint's threshold does
NONES = (5, 10, 20)  # queries of other labels that somebody has said to be none
BOUNDS = (0.1, 0.15, 0.2, 0.3, math.inf)  # by which they may raise the threshold
REFUSED = 0.8  # share of them that is to be refused
MOST_OTHERS = 25  # clips of other labels that judge a threshold
FACTORS = (-4.0, 4.0)  # logarithms between which a factor is looked for
Whole = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Task:
    """What is said of one drawn task.

    Args:
        logits_QN, truth_Q, near_Q: Of clips of other recordings.
        other_Q: Evidence of clips of other labels, which judge.
        none_Q: Evidence of further ones, which somebody has named.
        held_QN, held_truth_Q, held_near_Q: Of the task's own clips, held out.
        clips: How many those are.
    """

    logits_QN: Values
    truth_Q: Whole
    near_Q: Values
    other_Q: Values
    none_Q: Values
    held_QN: Values
    held_truth_Q: Whole
    held_near_Q: Values
    clips: int


def refined(
    judge: Judge, clips: Sequence[LabelledClip], episodes: Sequence[Episode], seed: int
) -> dict[str, object]:
    """Compare calibrations on drawn tasks of one layout.

    Args:
        judge: Scores the clips.
        clips: Whose features it has; those that a task has no label of are others.
        episodes: The tasks.
        seed: Draws the others.
    """
    ways = len(episodes[0].labels)
    shots = len(episodes[0].support) // ways
    calibration = judge.recognizer.calibration
    usual, fewer = (
        calibration.at([count] * ways, with_text=False) for count in (shots, max(1, shots - 1))
    )
    tasks = [
        _asked(judge, clips, one, np.random.default_rng([seed, place]))
        for place, one in enumerate(progress(episodes, desc="tasks", unit="task"))
    ]
    return {
        "shots": shots,
        "accuracy": round(
            float(np.mean([(one.logits_QN.argmax(axis=1) == one.truth_Q).mean() for one in tasks])),
            4,
        ),
        "scales": _scales(tasks, usual, fewer),
        "thresholds": _thresholds(tasks, usual, fewer),
    }


def _asked(
    judge: Judge, clips: Sequence[LabelledClip], episode: Episode, rng: np.random.Generator
) -> Task:
    pool = [place for place, clip in enumerate(clips) if clip.label not in episode.labels]
    others = [int(place) for place in rng.permutation(pool)[: MOST_OTHERS + max(NONES)]]
    own, classes = episode.support, episode.support_classes
    logits_QN, near_Q = judge.evidence(own, classes, [*episode.query, *others])
    count = len(episode.query)
    held, truth, near = [], list[int](), []
    for split in leave_one_out(classes):
        found, nearest = judge.evidence(
            [own[place] for place in split.supports],
            [classes[place] for place in split.supports],
            [own[place] for place in split.queries],
        )
        held.append(found)
        near.append(nearest)
        truth += [classes[place] for place in split.queries]
    return Task(
        logits_QN[:count],
        np.array(episode.query_classes),
        near_Q[:count],
        near_Q[count : count + MOST_OTHERS],
        near_Q[count + MOST_OTHERS :],
        np.concatenate(held),
        np.array(truth),
        np.concatenate(near),
        len(own),
    )


def refined_factor(task: Task, scale: float, prior: float) -> float:
    """Return the factor of a scale under which held-out clips are most likely, held towards 1.

    Args:
        task: Whose clips were held out.
        scale: The checkpoint's, at one shot less.
        prior: Standard deviation of the factor's logarithm.
    """

    def cost(log_factor: float) -> float:
        told = surprise(task.held_QN, task.held_truth_Q, scale * math.exp(log_factor))
        return task.clips * told + log_factor**2 / (2 * prior**2)

    return math.exp(float(minimize_scalar(cost, bounds=FACTORS, method="bounded").x))


def _scales(
    tasks: Sequence[Task], usual: TaskCalibration, fewer: TaskCalibration
) -> dict[str, dict[str, object]]:
    factors = {"checkpoint": [1.0] * len(tasks)}
    for prior in PRIORS:
        factors[f"leave-one-out, {prior:g}"] = [
            refined_factor(task, fewer.scale, prior) for task in tasks
        ]
    rows: dict[str, dict[str, object]] = {}
    before: Values | None = None
    for name, of_tasks in factors.items():
        scales = [usual.scale * factor for factor in of_tasks]
        pairs = list(zip(tasks, scales, strict=True))
        shares = np.concatenate([probabilities(task.logits_QN, scale) for task, scale in pairs])
        truth = np.concatenate([task.truth_Q for task in tasks])
        told = np.array([surprise(task.logits_QN, task.truth_Q, scale) for task, scale in pairs])
        before = told if before is None else before
        rows[name] = {
            "ece": round(calibration_error(shares, truth), 2),
            "nll": round(float(told.mean()), 4),
            "nll_more": _mean(told - before),
            "log_factor": round(float(np.log(of_tasks).mean()), 3),
        }
    return rows


def _thresholds(
    tasks: Sequence[Task], usual: TaskCalibration, fewer: TaskCalibration
) -> dict[str, dict[str, object]]:
    found: dict[str, list[float]] = defaultdict(list)
    for task in tasks:
        for name, threshold in _of_task(task, usual.threshold, fewer.threshold).items():
            found[name].append(threshold)
    rows: dict[str, dict[str, object]] = {}
    for name, thresholds in found.items():
        pairs = list(zip(tasks, thresholds, strict=True))
        known = np.array([(task.near_Q < one).mean() for task, one in pairs])
        others = np.array([(task.other_Q < one).mean() for task, one in pairs])
        rows[name] = {
            "known_refused": _mean(100 * known),
            "others_refused": _mean(100 * others),
            "auroc": round(
                separation(
                    np.concatenate([task.near_Q - one for task, one in pairs]),
                    np.concatenate([task.other_Q - one for task, one in pairs]),
                ),
                4,
            ),
        }
    return rows


def _of_task(task: Task, usual: float, fewer: float) -> Mapping[str, float]:
    """Return the thresholds of one task by name."""
    shift = float(np.quantile(task.held_near_Q, KNOWN_REFUSED)) - fewer
    found = {"checkpoint": usual}
    found |= {f"leave-one-out, {share:g}": usual + share * shift for share in SHARES}
    for count in NONES:
        named = np.sort(task.none_Q[:count])
        wanted = float(named[math.ceil(REFUSED * len(named)) - 1])
        for bound in BOUNDS:
            raised = max(usual, min(wanted, usual + bound))
            found[f"{count} none, +{bound:g} at most"] = raised
    return found


def _mean(values: Values) -> list[float]:
    """Return a mean with half of its 95 % interval."""
    half = 1.96 * values.std() / math.sqrt(len(values))
    return [round(float(values.mean()), 4), round(float(half), 4)]
