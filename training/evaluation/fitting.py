"""A calibration fitted to answers on base and val classes.

The factor of each number of shots gives the answers most likelihood, every number of ways weighing
the same; the threshold calls a set share of known clips unknown; the video score is taken after
the mean feature where that is surely better.

Dimensions: M queries, N classes, E feature width or episodes.
"""

import math
import statistics
from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from model.calibration.defaults import default_calibration
from model.calibration.fitted import Calibration, Fit, ShotRow
from model.recognizer import Recognizer
from model.views import alone_view
from training.data.datasets import LabelledClip
from training.data.episodes import DrawnEpisodes, Episode, fewest_labels
from training.errors import InputError
from training.evaluation.calibration import (
    Answers,
    ask,
    calibration_error,
    drawn,
    probabilities,
    separation,
    surprise,
)
from training.evaluation.examination import Layout
from training.evaluation.scoring import EpisodeScorer
from training.features.tokens import TokenSource

KNOWN_REFUSED = 0.05  # share of known clips that the threshold calls unknown
MEAN_CLIPS = 12  # of each base class, for the mean feature
SCALES = (-12.0, 8.0)  # logarithms between which a factor is looked for


@torch.inference_mode()
def mean_feature(
    recognizer: Recognizer, source: TokenSource, clips: Sequence[LabelledClip]
) -> Tensor:
    """Return the mean feature [E] of base classes, as matchers compare clips that stand alone.

    Args:
        recognizer: Whose features.
        source: Tokens of the clips.
        clips: Of base classes; those of the first data set count, each class the same.
    """
    places: dict[str, list[int]] = {}
    for place, clip in enumerate(clips):
        if clip.dataset == clips[0].dataset:
            places.setdefault(clip.label, []).append(place)
    alone = alone_view(recognizer.config.query_context)
    means = []
    for held in places.values():
        chosen = held[:: max(1, len(held) // MEAN_CLIPS)][:MEAN_CLIPS]
        made = [
            recognizer.video(source.tokens([place]).float().to(recognizer.device), alone)
            for place in chosen
        ]
        features_BTE = recognizer.asked(torch.cat(made))
        means.append(features_BTE.mean(dim=(0, 1)))
    return torch.stack(means).mean(dim=0)


def fitted_scale(answers: Sequence[Answers]) -> float:
    """Return the factor under which answers are most likely; it is convex in the factor."""
    flat = [one.flat() for one in answers]

    def mean_surprise(log_scale: float) -> float:
        scale = math.exp(log_scale)
        return statistics.fmean(surprise(logits, truth, scale) for logits, truth in flat)

    return math.exp(float(minimize_scalar(mean_surprise, bounds=SCALES, method="bounded").x))


def fit_calibration(
    recognizer: Recognizer,
    scorer: EpisodeScorer,
    clips: Sequence[LabelledClip],
    mean_E: Tensor,
    *,
    plan: DrawnEpisodes,
    source: str,
    mean_labels: Collection[str] = (),
) -> Calibration:
    """Fit a calibration.

    Args:
        recognizer: Whose.
        scorer: The same recogniser, ready to answer; it is not used after.
        clips: Of base or val classes that it may be judged by.
        mean_E: Mean feature of the base classes.
        plan: Which episodes.
        source: Says what it was fitted on.
        mean_labels: Classes of `mean_E`, which do not judge whether scores are taken after it.

    Raises:
        InputError: The clips do not allow the smallest episodes.
    """
    mean = tuple(round(value, 6) for value in mean_E.tolist())
    default = default_calibration(recognizer.config).model_copy(update={"mean": mean})
    chosen, answers = _chosen(scorer, default, clips, plan, mean_labels)
    text = [one for one in answers if one.with_text]
    video = [one for one in answers if not one.with_text]
    if not video:
        scorer.text = {}  # every label has text that the tower knows: ask again without
        video = _answers(scorer, chosen, clips, range(len(clips)), plan)
    return Calibration(
        source=source,
        centres_scores=chosen.centres_scores,
        video=_rows(video),
        text=_rows(text) if text else default.text,
        fingerprint=recognizer.fingerprint,
        mean=mean,
    )


def _chosen(
    scorer: EpisodeScorer,
    default: Calibration,
    clips: Sequence[LabelledClip],
    plan: DrawnEpisodes,
    mean_labels: Collection[str],
) -> tuple[Calibration, list[Answers]]:
    """Choose whether scores are taken after the mean feature; return the answers to all clips."""
    others = [place for place, clip in enumerate(clips) if clip.label not in mean_labels]
    shifted = default.model_copy(update={"centres_scores": True})
    plain, centred = (
        _answers(scorer, one, clips, others, plan) if others else [] for one in (default, shifted)
    )
    better = bool(others) and surely_better(centred, plain)
    chosen, answers = (shifted, centred) if better else (default, plain)
    if len(others) < len(clips):
        answers = _answers(scorer, chosen, clips, range(len(clips)), plan)
    return chosen, answers


def surely_better(these: Sequence[Answers], those: Sequence[Answers]) -> bool:
    """Tell whether answers to the same episodes are right more often, beyond their interval."""
    gains = np.concatenate(
        [one.rights - other.rights for one, other in zip(these, those, strict=True)]
    )
    return bool(gains.mean() > 1.96 * gains.std() / math.sqrt(len(gains)))


def _answers(
    scorer: EpisodeScorer,
    calibration: Calibration,
    clips: Sequence[LabelledClip],
    places: Sequence[int],
    plan: DrawnEpisodes,
) -> list[Answers]:
    """Ask episodes of all sizes that the clips at some places allow, under a mean feature."""
    scorer.recognizer.calibrate(calibration)
    allowed = [clips[place] for place in places]
    most = fewest_labels(allowed)
    ways = sorted({min(count, most) for count in plan.ways})
    found: list[Answers] = []
    refused: InputError | None = None
    for layout in (Layout(*sizes) for sizes in product(ways, plan.shots)):
        try:
            episodes = drawn(
                allowed, layout, queries=plan.queries, episodes=plan.episodes, seed=plan.seed
            )
        except InputError as error:
            refused = error
            continue
        found += ask(scorer, clips, [_at(places, one) for one in episodes], seed=plan.seed)
    if refused is not None and not found:
        raise refused
    return found


def _at(places: Sequence[int], episode: Episode) -> Episode:
    """Return an episode of some clips as one of all clips."""
    return replace(
        episode,
        support=tuple(places[clip] for clip in episode.support),
        query=tuple(places[clip] for clip in episode.query),
    )


def _rows(answers: Sequence[Answers]) -> tuple[ShotRow, ...]:
    rows = []
    for shots in sorted({one.layout.shots for one in answers}):
        of_shots = [one for one in answers if one.layout.shots == shots]
        near = np.concatenate([one.near_EQ.reshape(-1) for one in of_shots])
        scale = fitted_scale(of_shots)
        threshold = float(np.quantile(near, KNOWN_REFUSED))
        fit = errors(of_shots, scale, threshold)
        rows.append(
            ShotRow(
                shots=shots, scale=float(f"{scale:.4g}"), threshold=round(threshold, 4), fit=fit
            )
        )
    return tuple(rows)


def errors(answers: Sequence[Answers], scale: float, threshold: float) -> Fit:
    """Measure probabilities and `unknown` on answers; each layout weighs the same."""
    flat = [one.flat() for one in answers]

    def mean_error(factor: float) -> float:
        return statistics.fmean(
            calibration_error(probabilities(logits, factor), truth) for logits, truth in flat
        )

    def mean_surprise(factor: float) -> float:
        return statistics.fmean(surprise(logits, truth, factor) for logits, truth in flat)

    told = [separation(one.near_EQ, one.other_EQ) for one in answers if one.other_EQ.size]
    refused = statistics.fmean(float((one.near_EQ < threshold).mean()) for one in answers)
    return Fit(
        ways=tuple(one.layout.ways for one in answers),
        episodes=sum(len(one.truth_EQ) for one in answers),
        ece_before=round(mean_error(1.0), 2),
        ece=round(mean_error(scale), 2),
        nll_before=round(mean_surprise(1.0), 4),
        nll=round(mean_surprise(scale), 4),
        auroc=round(statistics.fmean(told), 4) if told else None,
        known_refused=round(100 * refused, 2),
    )
