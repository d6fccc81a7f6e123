"""What correcting answers gains: the least certain ones of many, beside as many drawn by chance.

Dimensions: Q queries, N classes.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.data.datasets import LabelledClip
from training.data.episodes import Episode
from training.evaluation.calibration import probabilities
from training.evaluation.diagnosing.judge import Judge
from training.progress import progress

POOL, CORRECTED = 50, 10  # answers, and those of them that somebody corrects
CHANCES = 5  # draws of as many by chance


@dataclass(frozen=True, slots=True)
class Asked:
    """Clips that a task is asked about, and their classes.

    Args:
        pool: Those of which some answers are corrected.
        fresh: Those that are asked afterwards, of other recordings.
    """

    pool: tuple[tuple[int, int], ...]
    fresh: tuple[tuple[int, int], ...]


def divided(clips: Sequence[LabelledClip], episode: Episode, rng: np.random.Generator) -> Asked:
    """Divide all clips of a task's labels that are of no support's recording, by recordings."""
    used = {(clips[one].label, clips[one].source_group) for one in episode.support}
    each = math.ceil(POOL / len(episode.labels))
    pool: list[tuple[int, int]] = []
    fresh: list[tuple[int, int]] = []
    for number, label in enumerate(episode.labels):
        groups: dict[str, list[int]] = defaultdict(list)
        for place, clip in enumerate(clips):
            if clip.label == label and (label, clip.source_group) not in used:
                groups[clip.source_group].append(place)
        order = [sorted(groups)[one] for one in rng.permutation(len(groups))]
        own: list[int] = []
        while len(order) > 1 and len(own) < each:
            own += groups[order.pop()]
        pool += [(int(one), number) for one in rng.permutation(own)[:each]]
        fresh += [(one, number) for group in order for one in groups[group]]
    kept = rng.permutation(len(pool))[:POOL]
    return Asked(tuple(pool[one] for one in kept), tuple(fresh))


def corrected(
    judge: Judge, clips: Sequence[LabelledClip], episodes: Sequence[Episode], seed: int
) -> dict[str, object]:
    """Correct answers of drawn tasks, and ask fresh queries before and after."""
    rows: dict[str, list[float]] = defaultdict(list)
    for place, episode in enumerate(progress(episodes, desc="tasks", unit="task")):
        rng = np.random.default_rng([seed, place])
        asked = divided(clips, episode, rng)
        logits_QN = judge.logits(
            episode.support, episode.support_classes, [clip for clip, _ in asked.pool]
        )
        shots = len(episode.support) // len(episode.labels)
        usual = judge.recognizer.calibration.at([shots] * len(episode.labels), with_text=False)
        sure_Q = probabilities(logits_QN, usual.scale).max(axis=1)
        wrong_Q = logits_QN.argmax(axis=1) != np.array([own for _, own in asked.pool])
        least = np.argsort(sure_Q, kind="stable")[:CORRECTED]
        chance = [rng.permutation(len(asked.pool))[:CORRECTED] for _ in range(CHANCES)]
        rows["before"].append(_accuracy(judge, episode, asked, []))
        rows["least certain"].append(_accuracy(judge, episode, asked, least))
        by_chance = [_accuracy(judge, episode, asked, one) for one in chance]
        rows["by chance"].append(float(np.mean(by_chance)))
        rows["wrong, least certain"].append(float(wrong_Q[least].mean()))
        rows["wrong, all"].append(float(wrong_Q.mean()))
    told = {name: np.array(values) for name, values in rows.items()}
    told["least certain - by chance"] = told["least certain"] - told["by chance"]
    told["least certain - before"] = told["least certain"] - told["before"]
    return {
        name: [
            round(100 * float(values.mean()), 2),
            round(196 * float(values.std()) / math.sqrt(len(values)), 2),
        ]
        for name, values in told.items()
    }


def _accuracy(
    judge: Judge, episode: Episode, asked: Asked, learnt: Sequence[int] | np.ndarray
) -> float:
    """Return the accuracy on fresh queries, each label weighing the same."""
    more = [asked.pool[one] for one in learnt]
    found = judge.logits(
        [*episode.support, *(clip for clip, _ in more)],
        [*episode.support_classes, *(own for _, own in more)],
        [clip for clip, _ in asked.fresh],
    ).argmax(axis=1)
    truth = np.array([own for _, own in asked.fresh])
    return float(np.mean([(found[truth == own] == own).mean() for own in np.unique(truth)]))
