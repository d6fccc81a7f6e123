"""What answers to episodes are worth: means with their intervals, by class, and what is confused.

Dimensions: N labels of all episodes together.
"""

import math
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from training.data.episodes import Episode
from training.evaluation.scoring import EpisodeScorer

CHUNK = 96  # episodes between two moves of the progress bar
Z = 1.959964  # 97.5 % quantile of the normal distribution
STUDENT = (math.nan, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Mean over episodes in percent, and half its 95 % interval."""

    mean: float
    interval: float
    episodes: int

    @classmethod
    def of(cls, shares: Sequence[float]) -> "Accuracy":
        """Summarise the share of right answers of each episode."""
        values = torch.tensor(shares, dtype=torch.float64) * 100
        spread = float(values.std()) if len(values) > 1 else math.nan
        return cls(float(values.mean()), 1.96 * spread / math.sqrt(len(values)), len(values))


@dataclass(frozen=True, slots=True)
class SeedAccuracy:
    """Mean over trainings that differ in their seed, and half its 95 % interval, percent."""

    mean: float
    interval: float  # Student's t; not a number for one seed
    seeds: int

    @classmethod
    def of(cls, means: Sequence[float]) -> "SeedAccuracy":
        """Summarise the accuracy of each seed, percent."""
        count, mean = len(means), statistics.fmean(means)
        if count == 1:
            return cls(mean, math.nan, 1)
        reach = student(count - 1) * statistics.stdev(means) / math.sqrt(count)
        return cls(mean, reach, count)


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
    def accuracy(self) -> Accuracy:
        """Mean and interval over episodes."""
        return Accuracy.of(self.shares)

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
    alone = scorer.support_alone and scorer.recognizer.device.type == "cpu"
    bar = tqdm(total=len(episodes), desc=name, unit="episode")
    with bar, one_thread() if alone else nullcontext():
        for first in range(0, len(episodes), CHUNK):
            part = episodes[first : first + CHUNK]
            answers += scorer.answers(part)
            bar.update(len(part))
    return Tally.of(labels, episodes, answers)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread: where only features are compared, more would wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def student(free: int) -> float:
    """Return the 97.5 % quantile of Student's t; above 10 degrees of freedom by its expansion."""
    if free < len(STUDENT):
        return STUDENT[free]
    quantile = Z + (Z**3 + Z) / (4 * free) + (5 * Z**5 + 16 * Z**3 + 3 * Z) / (96 * free**2)
    return quantile + (3 * Z**7 + 19 * Z**5 + 17 * Z**3 - 15 * Z) / (384 * free**3)
