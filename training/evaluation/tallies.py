"""What answers to episodes are worth: means with their intervals, by class, and what is confused.

Dimensions: E episodes, Q queries, N labels of all episodes together, A stages.
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

from model.episode import Scores
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
class StageTally:
    """How well the text of each stage matched, in episodes whose labels all have text.

    Args:
        sum_NNA: Sum of the scores of queries of label [row] against the stages of label [column].
        count_NN: Over how many queries.
    """

    sum_NNA: NDArray[np.float64]
    count_NN: NDArray[np.int64]

    @property
    def own(self) -> NDArray[np.float64]:
        """Mean score of the queries of each label against its own stages."""
        own = np.arange(len(self.count_NN))
        return _means(self.sum_NNA[own, own], self.count_NN[own, own])

    @property
    def others(self) -> NDArray[np.float64]:
        """Mean score of the queries of each label against the stages of the other labels."""
        apart_NN = ~np.eye(len(self.count_NN), dtype=bool)
        sums_NA = (self.sum_NNA * apart_NN[:, :, None]).sum(axis=1)
        return _means(sums_NA, (self.count_NN * apart_NN).sum(axis=1))


def _means(sums_NA: NDArray[np.float64], counts_N: NDArray[np.int64]) -> NDArray[np.float64]:
    return sums_NA / np.where(counts_N == 0, np.nan, counts_N)[:, None]


@dataclass(frozen=True, slots=True)
class Tally:
    """What was answered in episodes.

    Args:
        labels: All labels, the order of rows and columns.
        shares: Share of right answers of each episode.
        answered_NN: Queries of label [row] that were answered [column].
        asked_NN: Queries of label [row] in episodes where [column] could be answered.
        class_shares_EN: `shares` of the queries of each label; not a number where it was not asked.
        stages: How well the text of stages matched; None without text.
    """

    labels: tuple[str, ...]
    shares: tuple[float, ...]
    answered_NN: NDArray[np.int64]
    asked_NN: NDArray[np.int64]
    class_shares_EN: NDArray[np.float64]
    stages: StageTally | None = None

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

    @property
    def class_intervals(self) -> dict[str, float]:
        """Half of the 95 % interval of `by_class`, over the episodes that asked the label."""
        columns = (shares_E[np.isfinite(shares_E)].tolist() for shares_E in self.class_shares_EN.T)
        found = (over_episodes(shares).interval if shares else math.nan for shares in columns)
        return dict(zip(self.labels, found, strict=True))

    def beyond(self, base: "Tally") -> Estimate:
        """Estimate how much better this is than another tally of the same episodes, in percent.

        The difference is taken in each episode, so what is hard in an episode for both drops out.
        """
        return over_episodes(np.subtract(self.shares, base.shares).tolist())

    @classmethod
    def of(
        cls,
        labels: Sequence[str],
        episodes: Sequence[Episode],
        answers: Sequence[Tensor],
        stages: StageTally | None = None,
    ) -> "Tally":
        """Count the answers [Q], class indices, to each episode's queries."""
        place = {label: number for number, label in enumerate(labels)}
        answered, asked = np.zeros((2, len(place), len(place)), np.int64)
        shares: list[float] = []
        class_shares = np.full((len(episodes), len(place)), np.nan)
        for number, (episode, answer) in enumerate(zip(episodes, answers, strict=True)):
            present = np.array([place[label] for label in episode.labels])
            wanted, given = np.array(episode.query_classes), answer.numpy()
            right = wanted == given
            shares.append(float(right.mean()))
            for label in np.unique(wanted):
                class_shares[number, present[label]] = right[wanted == label].mean()
            np.add.at(answered, (present[wanted], present[given]), 1)
            np.add.at(asked, (present[wanted][:, None], present[None, :]), 1)
        return cls(tuple(labels), tuple(shares), answered, asked, class_shares, stages)

    @classmethod
    def over_seeds(cls, tallies: Sequence["Tally"]) -> "Tally":
        """Join the answers that several seeds gave to the same episodes: an episode's mean share.

        The interval over episodes then is that of the seeds' mean.
        """
        means = np.mean([tally.shares for tally in tallies], axis=0).tolist()
        answered = np.sum([tally.answered_NN for tally in tallies], axis=0)
        asked = np.sum([tally.asked_NN for tally in tallies], axis=0)
        by_class = np.mean([tally.class_shares_EN for tally in tallies], axis=0)
        with_text = [tally.stages for tally in tallies if tally.stages is not None]
        stages = None
        if with_text:
            sums = np.sum([one.sum_NNA for one in with_text], axis=0)
            stages = StageTally(sums, np.sum([one.count_NN for one in with_text], axis=0))
        return cls(tallies[0].labels, tuple(means), answered, asked, by_class, stages)


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
    stages: StageTally | None = None
    bar = progress(total=len(episodes), desc=name, unit="episode")
    with bar:
        for first in range(0, len(episodes), CHUNK):
            part = episodes[first : first + CHUNK]
            scores = scorer.scores(part)
            answers += [each.logits_QN.float().argmax(dim=1) for each in scores]
            stages = add_stages(stages, labels, part, scores)
            bar.update(len(part))
    return Tally.of(labels, episodes, answers, stages)


def add_stages(
    so_far: StageTally | None,
    labels: Sequence[str],
    episodes: Sequence[Episode],
    scores: Sequence[Scores],
) -> StageTally | None:
    """Add the stage scores of more episodes; those without text add nothing."""
    place = {label: number for number, label in enumerate(labels)}
    for episode, score in zip(episodes, scores, strict=True):
        if score.stages_QNA is None:
            continue
        stages_QNA = score.stages_QNA.double().numpy()
        if so_far is None:
            count = len(place)
            sums = np.zeros((count, count, stages_QNA.shape[-1]))
            so_far = StageTally(sums, np.zeros((count, count), np.int64))
        present = np.array([place[label] for label in episode.labels])
        asked = present[np.array(episode.query_classes)][:, None], present[None, :]
        np.add.at(so_far.sum_NNA, asked, stages_QNA)
        np.add.at(so_far.count_NN, asked, 1)
    return so_far
