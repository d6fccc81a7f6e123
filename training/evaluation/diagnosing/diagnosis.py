"""Does a task's diagnosis tell the truth: what it says of drawn tasks beside what then happens.

Every task is drawn with one clip a label more than it has. Of it are asked, by video alone:
how near leave-one-out comes to the accuracy on clips of other recordings; whether a clip that is
given a wrong label is found among the most suspicious; and what one clip more of each label gives
beside what the curve expected.

"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, assert_never

import numpy as np
import torch

from model.checkpoint import load_recognizer
from model.diagnosis.curve import curve
from model.diagnosis.splits import fewer_shots, leave_one_out
from model.diagnosis.verdicts import verdicts
from training.data.datasets import DataChoice, LabelledClip
from training.data.episodes import Episode, EpisodePlan, EpisodeSampler
from training.data.listings import Split
from training.errors import InputError
from training.evaluation.diagnosing.correction import corrected
from training.evaluation.diagnosing.judge import Judge
from training.evaluation.diagnosing.refinement import refined
from training.evaluation.scoring import EpisodeScorer
from training.evaluation.variants import as_evaluated
from training.features.readable import readable_splits
from training.features.tokens import TokenSources
from training.progress import progress

Question = Literal["diagnosis", "corrections", "calibration"]
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
        ask: Whether the diagnosis tells the truth, what corrections gain, or what a calibration
            gains that is the task's own.
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
    ask: Question = "diagnosis"
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


def diagnose(job: DiagnoseJob) -> dict[str, object]:
    """Draw tasks of the val classes, and ask a question of them.

    Raises:
        InputError: The data does not fit, or supports of the method see each other.
    """
    splits: tuple[Split, ...] = ("val", "train") if job.ask == "calibration" else ("val",)
    data = readable_splits(job.data.open(), splits, job.cache)
    recognizer = as_evaluated(load_recognizer(job.checkpoint, weights=job.backbone_weights))
    recognizer.to(torch.device(job.device))
    clips = [clip for split in splits for clip in data.split(split)]
    sources = TokenSources(f"{data.name}-{'-'.join(splits)}", clips, cache=job.cache, half=False)
    scorer = EpisodeScorer(recognizer, sources.of(recognizer), len(clips))
    if scorer.features_CTE is None:
        raise InputError(f"The clips of {job.checkpoint} see each other; choose another method.")
    judge = Judge(scorer.recognizer, scorer.features_CTE)
    return answered(job, judge, clips, len(data.split("val")))


def answered(
    job: DiagnoseJob, judge: Judge, clips: Sequence[LabelledClip], own: int
) -> dict[str, object]:
    """Ask a question of tasks of the first `own` clips."""
    shots = job.shots + 1 if job.ask == "diagnosis" else job.shots
    sampler = EpisodeSampler(clips[:own], EpisodePlan(job.ways, shots, job.queries), job.seed)
    episodes = [sampler.draw(number) for number in range(job.tasks)]
    match job.ask:
        case "diagnosis":
            return _compared(job, judge, episodes)
        case "corrections":
            found = corrected(judge, clips, episodes, job.seed)
        case "calibration":
            found = refined(judge, clips, episodes, job.seed)
        case _:
            assert_never(job.ask)
    return {"checkpoint": job.checkpoint, "tasks": job.tasks, **found}


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
