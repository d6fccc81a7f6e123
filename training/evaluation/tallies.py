"""What answers to episodes are worth: means with their intervals, by class, and what is confused.

Dimensions: N labels of all episodes together.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import stdtrit
from torch import Tensor

from training.data.episodes import Episode
from training.evaluation.scoring import EpisodeScorer
from training.progress import progress

CHUNK = 96  # episodes between two moves of the progress bar


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean in percent, and half of its 95 % interval.

    Args:
        mean: In percent.
        interval: Half of the interval, in percent; not a number for a single value.
        count: How many values the mean is over.
    """

    mean: float
    interval: float
    count: int


def over_episodes(shares: Sequence[float]) -> Estimate:
    """Estimate an accuracy from the share of right answers of each of many episodes."""
    values = torch.tensor(shares, dtype=torch.float64) * 100
    spread = float(values.std()) if len(values) > 1 else math.nan
    return Estimate(float(values.mean()), 1.96 * spread / math.sqrt(len(values)), len(values))


def over_seeds(means: Sequence[float]) -> Estimate:
    """Estimate an accuracy from that of each of a few trainings, percent, by Student's t."""
    count, mean = len(means), statistics.fmean(means)
    if count == 1:
        return Estimate(mean, math.nan, 1)
    quantile = float(stdtrit(count - 1, 0.975))
    return Estimate(mean, quantile * statistics.stdev(means) / math.sqrt(count), count)


@dataclass(frozen=True, slots=True)
class Tally:
    """What was answered in episodes.

    Args:
        labels: All labels, the order of rows and columns.
        shares: Share of right answers of each episode.
        answered_NN: Queries of label [row] that were answered [column].
        asked_NN: Queries of label [row] in episodes where [column] could be answered.
    """

    labels: tuple[str, ...]
    shares: tuple[float, ...]
    answered_NN: NDArray[np.int64]
    asked_NN: NDArray[np.int64]

    @property
    def accuracy(self) -> Estimate:
        """Mean and interval over episodes."""
        return over_episodes(self.shares)

    @property
    def confusion(self) -> NDArray[np.float64]:
        """Percent [N, N] of queries [row] answered [column] where both were asked, else NaN."""
        asked = np.where(self.asked_NN == 0, 1, self.asked_NN)
        return np.where(self.asked_NN == 0, np.nan, 100 * self.answered_NN / asked)

    @property
    def by_class(self) -> dict[str, float]:
        """Percent of the queries of each label that were answered rightly."""
        right_N = self.confusion.diagonal()
        return dict(zip(self.labels, right_N.tolist(), strict=True))

    @classmethod
    def of(
        cls, labels: Sequence[str], episodes: Sequence[Episode], answers: Sequence[Tensor]
    ) -> "Tally":
        """Count the answers [Q], class indices, to each episode's queries."""
        place = {label: number for number, label in enumerate(labels)}
        answered, asked = np.zeros((2, len(place), len(place)), np.int64)
        shares: list[float] = []
        for episode, answer in zip(episodes, answers, strict=True):
            present = np.array([place[label] for label in episode.labels])
            wanted, given = np.array(episode.query_classes), answer.numpy()
            shares.append(float((wanted == given).mean()))
            np.add.at(answered, (present[wanted], present[given]), 1)
            np.add.at(asked, (present[wanted][:, None], present[None, :]), 1)
        return cls(tuple(labels), tuple(shares), answered, asked)

    @classmethod
    def over_seeds(cls, tallies: Sequence["Tally"]) -> "Tally":
        """Join the answers that several seeds gave to the same episodes: an episode's mean share.

        The interval over episodes then is that of the seeds' mean.
        """
        means = np.mean([tally.shares for tally in tallies], axis=0).tolist()
        answered = np.sum([tally.answered_NN for tally in tallies], axis=0)
        asked = np.sum([tally.asked_NN for tally in tallies], axis=0)
        return cls(tallies[0].labels, tuple(means), answered, asked)


def measure(
    scorer: EpisodeScorer, labels: Sequence[str], episodes: Sequence[Episode], *, name: str
) -> Tally:
    """Let a recogniser answer episodes.

    Args:
        scorer: What answers.
        labels: All labels of the episodes.
        episodes: What is asked.
        name: Shown beside the progress bar.
    """
    answers: list[Tensor] = []
    bar = progress(total=len(episodes), desc=name, unit="episode")
    with bar:
        for first in range(0, len(episodes), CHUNK):
            part = episodes[first : first + CHUNK]
            answers += scorer.answers(part)
            bar.update(len(part))
    return Tally.of(labels, episodes, answers)
