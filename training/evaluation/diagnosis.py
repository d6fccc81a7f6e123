"""Does a task's diagnosis tell the truth: what it says of drawn tasks beside what then happens.

Every task is drawn with one clip a label more than it has. Of it are asked, by video alone:
how near leave-one-out comes to the accuracy on clips of other recordings; whether a clip that is
given a wrong label is found among the most suspicious; and what one clip more of each label gives
beside what the curve expected.

Dimensions: C clips of the split, T frames, E feature width, Q queries, N classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from model.checkpoint import load_recognizer
from model.diagnosis.curve import curve
from model.diagnosis.splits import Split, fewer_shots, leave_one_out
from model.diagnosis.verdicts import verdicts
from model.recognizer import Recognizer
from training.data.datasets import DataChoice
from training.data.episodes import Episode, EpisodePlan, EpisodeSampler
from training.errors import InputError
from training.evaluation.scoring import EpisodeScorer
from training.evaluation.variants import as_evaluated
from training.features.readable import readable_splits
from training.features.tokens import TokenSources
from training.progress import progress

SUSPECTS = 2  # among which a wrong clip is to be found


@dataclass(frozen=True, slots=True, kw_only=True)
class DiagnoseJob:
    """What is diagnosed.

    Args:
        checkpoint: As KSHOT_CHECKPOINT.
        backbone_weights: File of the backbone's weights; None takes the hub's.
        data: Whose clips.
        tasks: How many tasks are drawn.
        ways, shots, queries: Labels of a task, clips of a label, and those that are asked.
        seed: Of the drawing.
        cache: Where trunk caches lie; None holds tokens in memory.
        device: Where to compute.
    """

    checkpoint: str
    data: DataChoice
    backbone_weights: Path | None = None
    tasks: int = 200
    ways: int = 5
    shots: int = 5
    queries: int = 5
    seed: int = 0
    cache: Path | None = None
    device: str = "cpu"


@dataclass(slots=True)
class Told:
    """What was said of each task, and what happened."""

    said: list[float] = field(default_factory=list)
    happened: list[float] = field(default_factory=list)

    def note(self, said: float, happened: float) -> None:
        """Add a task."""
        self.said.append(said)
        self.happened.append(happened)

    def summary(self) -> dict[str, float]:
        """Return means, bias, root mean square error and correlation."""
        said, happened = np.array(self.said), np.array(self.happened)
        flat = said.std() == 0 or happened.std() == 0
        return {
            "said": round(float(said.mean()), 4),
            "happened": round(float(happened.mean()), 4),
            "bias": round(float((said - happened).mean()), 4),
            "rmse": round(float(np.sqrt(np.square(said - happened).mean())), 4),
            "correlation": 0.0 if flat else round(float(np.corrcoef(said, happened)[0, 1]), 3),
        }


class Judge:
    """Scores clips of a split by other clips, from features that are made once.

    Args:
        recognizer: What scores.
        features_CTE: Of all clips of the split.
    """

    def __init__(self, recognizer: Recognizer, features_CTE: Tensor) -> None:
        self.recognizer = recognizer
        self.features_CTE = features_CTE

    @torch.inference_mode()
    def logits(
        self, clips: Sequence[int], classes: Sequence[int], asked: Sequence[int]
    ) -> np.ndarray:
        """Return logits [Q, N] of clips by others."""
        features = self.features_CTE
        classes_S = torch.tensor(classes, device=features.device)
        scores = self.recognizer.score_features(
            features[list(clips)], classes_S, features[list(asked)], None
        )
        found: np.ndarray = scores.logits_QN.float().cpu().numpy()
        return found

    def held_out(
        self, clips: Sequence[int], classes: Sequence[int], splits: Sequence[Split]
    ) -> list[np.ndarray]:
        """Return logits of each split of a task."""
        return [
            self.logits(
                [clips[place] for place in split.supports],
                [classes[place] for place in split.supports],
                [clips[place] for place in split.queries],
            )
            for split in splits
        ]

    def accuracy(self, episode: Episode, places: Sequence[int]) -> float:
        """Return the share of an episode's queries that some of its supports recognise."""
        clips = [episode.support[place] for place in places]
        classes = [episode.support_classes[place] for place in places]
        found = self.logits(clips, classes, episode.query).argmax(axis=1)
        return float((found == np.array(episode.query_classes)).mean())


def diagnose(job: DiagnoseJob) -> dict[str, object]:
    """Draw tasks of the val classes, diagnose them, and compare.

    Raises:
        InputError: The data does not fit, or supports of the method see each other.
    """
    data = readable_splits(job.data.open(), ("val",), job.cache)
    recognizer = as_evaluated(load_recognizer(job.checkpoint, weights=job.backbone_weights))
    recognizer.to(torch.device(job.device))
    clips = data.split("val")
    sources = TokenSources(f"{data.name}-val", clips, cache=job.cache, half=False)
    scorer = EpisodeScorer(recognizer, sources.of(recognizer), len(clips))
    if scorer.features_CTE is None:
        raise InputError(f"The clips of {job.checkpoint} see each other; choose another method.")
    judge = Judge(scorer.recognizer, scorer.features_CTE)
    plan = EpisodePlan(job.ways, job.shots + 1, job.queries)
    sampler = EpisodeSampler(clips, plan, job.seed)
    return _compared(job, judge, [sampler.draw(number) for number in range(job.tasks)])


def _compared(job: DiagnoseJob, judge: Judge, episodes: Sequence[Episode]) -> dict[str, object]:
    loo, gain, found = Told(), Told(), []
    rng = np.random.default_rng(job.seed)
    for episode in progress(episodes, desc="tasks", unit="task"):
        every = range(len(episode.support))
        own = [place for place in every if place % (job.shots + 1) < job.shots]
        clips = [episode.support[place] for place in own]
        classes = [episode.support_classes[place] for place in own]
        splits = leave_one_out(classes)
        overall = verdicts(splits, judge.held_out(clips, classes, splits), classes).accuracy()
        assert overall is not None
        now = judge.accuracy(episode, own)
        loo.note(overall.value, now)
        fewer = fewer_shots(classes)
        grown = curve(fewer, judge.held_out(clips, classes, fewer), classes)
        assert grown is not None
        gain.note(grown.one_more - grown.now, judge.accuracy(episode, every) - now)
        found.append(_wrong_clip_rank(judge, clips, classes, rng))
    share = float(np.mean([rank < SUSPECTS for rank in found]))
    return {
        "checkpoint": job.checkpoint,
        "tasks": job.tasks,
        "leave_one_out": loo.summary(),
        "wrong_label_found": round(share, 3),
        "wrong_label_first": round(float(np.mean([rank == 0 for rank in found])), 3),
        "one_more": gain.summary(),
    }


def _wrong_clip_rank(
    judge: Judge, clips: Sequence[int], classes: Sequence[int], rng: np.random.Generator
) -> int:
    """Give one clip a wrong label, and return its place among the suspicious."""
    wrong = int(rng.integers(len(clips)))
    others = sorted({*classes} - {classes[wrong]})
    given = list(classes)
    given[wrong] = int(rng.choice(others))
    splits = leave_one_out(given)
    said = verdicts(splits, judge.held_out(clips, given, splits), given)
    return said.suspicious().index(wrong)
