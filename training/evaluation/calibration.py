"""Are probabilities what they say: calibration error, likelihood, and how `unknown` does.

Dimensions: E episodes, Q queries of an episode, M queries of all episodes, N classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata

from model.episode import Scores
from training.data.datasets import LabelledClip
from training.data.episodes import Episode, EpisodePlan, EpisodeSampler
from training.evaluation.examination import Layout
from training.evaluation.scoring import EpisodeScorer

BINS = 15
Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Answers:
    """What a recogniser said of the queries of episodes of one layout.

    Args:
        layout: The sizes.
        with_text: Whether text took part.
        logits_EQN: Of queries that are one of the classes.
        truth_EQ: Which.
        near_EQ: Cosine with the nearest class.
        other_EQ: The same of clips of other classes; of width 0 where there are none.
    """

    layout: Layout
    with_text: bool
    logits_EQN: Values
    truth_EQ: NDArray[np.int64]
    near_EQ: Values
    other_EQ: Values

    @property
    def rights(self) -> Values:
        """Share of right answers of each episode."""
        shares: Values = (self.logits_EQN.argmax(axis=2) == self.truth_EQ).mean(axis=1)
        return shares

    def flat(self) -> tuple[Values, NDArray[np.int64]]:
        """Return logits_MN and truth_M of all episodes."""
        return self.logits_EQN.reshape(-1, self.logits_EQN.shape[2]), self.truth_EQ.reshape(-1)


def drawn(
    clips: Sequence[LabelledClip], layout: Layout, *, queries: int, episodes: int, seed: int
) -> list[Episode]:
    """Draw episodes, with as many queries a class as the clips allow.

    Raises:
        InputError: Not even one query a class can be drawn.
    """
    sampler = None
    for count in range(queries, 0, -1):
        plan = EpisodePlan(layout.ways, layout.shots, count)
        if count == 1 or EpisodeSampler.fits(clips, plan):
            sampler = EpisodeSampler(clips, plan, seed)
            break
    assert sampler is not None
    return [sampler.draw(number) for number in range(episodes)]


def ask(
    scorer: EpisodeScorer,
    clips: Sequence[LabelledClip],
    episodes: Sequence[Episode],
    *,
    seed: int,
) -> list[Answers]:
    """Ask a recogniser, and ask it as many clips of other classes of the same data set.

    Args:
        scorer: Of `clips`.
        clips: All that can be asked; those that no episode knows the class of are others.
        episodes: Of one layout.
        seed: Draws the others.

    Returns:
        Answers by video alone and with text, whichever there are.
    """
    others = [
        _others(clips, one, np.random.default_rng([seed, n])) for n, one in enumerate(episodes)
    ]
    least = min((len(found) for found in others), default=0)
    asked = [
        replace(one, query=(*one.query, *found[:least]))
        for one, found in zip(episodes, others, strict=True)
    ]
    scores = scorer.scores(asked)
    by_text = [one.text_QN is not None for one in scores]
    return [
        _answers(episodes, scores, [n for n, with_text in enumerate(by_text) if with_text == kind])
        for kind in (False, True)
        if kind in by_text
    ]


def _answers(
    episodes: Sequence[Episode], scores: Sequence[Scores], chosen: Sequence[int]
) -> Answers:
    """Put the answers to some of the episodes together; their own queries come first."""
    first = episodes[0]
    queries, ways = len(first.query), len(first.labels)
    logits = torch.stack([scores[n].logits_QN[:queries] for n in chosen]).double().numpy()
    near = torch.stack([scores[n].near_QN.amax(dim=1) for n in chosen]).double().numpy()
    return Answers(
        Layout(ways, len(first.support) // ways),
        scores[chosen[0]].text_QN is not None,
        logits,
        np.array([episodes[n].query_classes for n in chosen]),
        near[:, :queries],
        near[:, queries:],
    )


def probabilities(logits_MN: Values, scale: float) -> Values:
    """Return softmax(scale * logits)."""
    scaled = scale * (logits_MN - logits_MN.max(axis=1, keepdims=True))
    powers = np.exp(scaled)
    shares: Values = powers / powers.sum(axis=1, keepdims=True)
    return shares


def calibration_error(shares_MN: Values, truth_M: NDArray[np.int64]) -> float:
    """Return the expected calibration error, percent: |accuracy - confidence| over 15 bins."""
    confidence_M, right_M = shares_MN.max(axis=1), shares_MN.argmax(axis=1) == truth_M
    bins_M = np.minimum((confidence_M * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins_M, weights=right_M - confidence_M, minlength=BINS)
    return float(100 * np.abs(gaps).sum() / len(truth_M))


def surprise(logits_MN: Values, truth_M: NDArray[np.int64], scale: float) -> float:
    """Return the mean negative log-likelihood of the right answers, nats."""
    scaled = scale * (logits_MN - logits_MN.max(axis=1, keepdims=True))
    told_M = scaled[np.arange(len(truth_M)), truth_M]
    return float((np.log(np.exp(scaled).sum(axis=1)) - told_M).mean())


def separation(known: Values, others: Values) -> float:
    """Return the AUROC: how often a known clip is nearer than one of another class."""
    ranks = rankdata(np.concatenate([known.reshape(-1), others.reshape(-1)]))
    count = known.size
    above = ranks[:count].sum() - count * (count + 1) / 2
    return float(above / (count * others.size))


def _others(clips: Sequence[LabelledClip], episode: Episode, rng: np.random.Generator) -> list[int]:
    """Draw as many clips of other labels of the episode's data set as it has queries."""
    dataset = clips[episode.support[0]].dataset
    outside = [
        index
        for index, clip in enumerate(clips)
        if clip.label not in episode.labels and clip.dataset == dataset
    ]
    return [int(one) for one in rng.permutation(outside)[: len(episode.query)]]


def report(answers: Answers, scale: float, threshold: float) -> dict[str, object]:
    """Measure probabilities and `unknown`, each with half of its 95 % interval over episodes."""
    logits_MN, truth_M = answers.flat()
    found: dict[str, object] = {
        "ways": answers.layout.ways,
        "shots": answers.layout.shots,
        "with_text": answers.with_text,
        "episodes": len(answers.truth_EQ),
        "scale": scale,
        "threshold": threshold,
        "accuracy": _percent(answers.rights),
        "known_refused": _percent((answers.near_EQ < threshold).mean(axis=1)),
    }
    for name, factor in (("before", 1.0), ("after", scale)):
        shares_MN = probabilities(logits_MN, factor)
        found[f"ece_{name}"] = [
            round(calibration_error(shares_MN, truth_M), 2),
            _error_interval(answers, factor),
        ]
        found[f"nll_{name}"] = _mean(
            np.array(
                [
                    surprise(logits_QN, truth_Q, factor)
                    for logits_QN, truth_Q in zip(answers.logits_EQN, answers.truth_EQ, strict=True)
                ]
            )
        )
    if answers.other_EQ.size:
        each = [separation(*one) for one in zip(answers.near_EQ, answers.other_EQ, strict=True)]
        pooled = separation(answers.near_EQ, answers.other_EQ)
        found["auroc"] = [round(pooled, 4), _mean(np.array(each))[1]]
        found["others_refused"] = _percent((answers.other_EQ < threshold).mean(axis=1))
    return found


def _error_interval(answers: Answers, factor: float, *, resamples: int = 200) -> float:
    """Return 1.96 standard deviations of the calibration error over resampled episodes."""
    shares_EQN = np.stack([probabilities(one, factor) for one in answers.logits_EQN])
    confidence_EQ = shares_EQN.max(axis=2)
    gap_EQ = (shares_EQN.argmax(axis=2) == answers.truth_EQ) - confidence_EQ
    bins_EQ = np.minimum((confidence_EQ * BINS).astype(int), BINS - 1)
    sums_EB = np.stack([(gap_EQ * (bins_EQ == place)).sum(axis=1) for place in range(BINS)], axis=1)
    rng = np.random.default_rng(0)
    count = len(sums_EB)
    found = [
        np.abs(sums_EB[rng.integers(0, count, count)].sum(axis=0)).sum() / answers.truth_EQ.size
        for _ in range(resamples)
    ]
    return round(float(196 * np.std(found)), 2)


def _mean(values_E: Values) -> list[float]:
    interval = 1.96 * values_E.std() / len(values_E) ** 0.5
    return [round(float(values_E.mean()), 4), round(float(interval), 4)]


def _percent(values_E: Values) -> list[float]:
    mean, interval = _mean(100 * values_E)
    return [round(mean, 2), round(interval, 2)]
