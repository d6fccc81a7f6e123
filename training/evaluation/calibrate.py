"""A checkpoint's calibration: fitted on base and val classes and written, or measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from model.backbones.sources import folder_of
from model.calibration.fitted import Calibration, write_calibration
from model.checkpoint import load_recognizer, save_checkpoint
from model.recognizer import Recognizer
from training.data.datasets import DataChoice, Dataset, LabelledClip
from training.data.descriptions_file import stage_texts
from training.data.episodes import CALIBRATING, DrawnEpisodes
from training.data.listings import Split
from training.errors import InputError
from training.evaluation.calibration import ask, drawn, report
from training.evaluation.examination import Layout
from training.evaluation.fitting import fit_calibration, mean_feature
from training.evaluation.scoring import EpisodeScorer
from training.evaluation.variants import as_evaluated
from training.features.readable import readable_splits
from training.features.tokens import TokenSources


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrateJob:
    """What is to be calibrated, or measured.

    Args:
        checkpoint: As KSHOT_CHECKPOINT.
        backbone_weights: File of the backbone's weights; None takes the hub's.
        data: On which clips.
        episodes: How they are drawn.
        splits: Whose labels judge; None takes val, and train too where nothing was trained on it.
        descriptions: File of stage texts; None takes the template's.
        with_text: Whether text takes part.
        cache: Where trunk caches lie; None holds tokens in memory.
        out: Folder of a new checkpoint; None writes into the checkpoint's own.
        report: Split to measure on; None fits.
        device: Where to compute.
        half: Whether to compute in bfloat16.
    """

    checkpoint: str
    data: DataChoice
    backbone_weights: Path | None = None
    episodes: DrawnEpisodes = CALIBRATING
    splits: tuple[Split, ...] | None = None
    descriptions: Path | None = None
    with_text: bool = True
    cache: Path | None = None
    out: Path | None = None
    report: Split | None = None
    device: str = "cpu"
    half: bool = False


def calibrate(job: CalibrateJob) -> dict[str, object]:
    """Fit and write a calibration, or report on the one that is there; return what is told.

    Raises:
        InputError: The data does not fit, or there is no folder to write into.
        KshotError: The checkpoint cannot be used.
    """
    if job.report is None:
        out = job.out or _own_folder(job.checkpoint)
    judging = ("train", "val") if job.report is None else (job.report, _other(job.report))
    data = readable_splits(job.data.open(), judging, job.cache)
    recognizer = load_recognizer(job.checkpoint, weights=job.backbone_weights)
    recognizer.to(torch.device(job.device))
    if job.report is not None:
        return {"split": job.report, "rows": _report(job, job.report, recognizer, data)}
    found = _fit(job, recognizer, data)
    if job.out is not None:
        card = f"# {recognizer.name}, calibrated\n\n{found.source}\n"
        save_checkpoint(recognizer, out, card)
        name = load_recognizer(str(out), weights=job.backbone_weights).fingerprint
        found = found.model_copy(update={"fingerprint": name})
    write_calibration(out, found)
    return {"out": out.name, **found.model_dump(exclude={"mean"})}


def _own_folder(checkpoint: str) -> Path:
    """Return the folder of a checkpoint that its path names; the packaged one stays as it is."""
    folder = folder_of(checkpoint)
    if folder is None:
        raise InputError(f"{checkpoint} is a bare backbone without a folder; name one with --out.")
    if not (Path(checkpoint).exists() and folder.samefile(checkpoint)):
        raise InputError(
            f"{checkpoint} is packaged with kshot and stays as it is; name the folder of a new "
            "checkpoint with --out."
        )
    return folder


def _fit(job: CalibrateJob, recognizer: Recognizer, data: Dataset) -> Calibration:
    splits: Sequence[Split] = job.splits or (("val",) if recognizer.trained else ("train", "val"))
    scorer = _scorer(job, recognizer, data, splits)
    train = data.split("train")
    sources = _sources(job, f"{data.name}-train", train)
    asked = as_evaluated(recognizer)
    return fit_calibration(
        recognizer,
        scorer,
        [clip for split in splits for clip in data.split(split)],
        mean_feature(asked, sources.of(asked), train),
        plan=job.episodes,
        source=f"{data.name}, {' and '.join(splits)} classes",
        mean_labels={clip.label for clip in train},
    )


def _other(own: Split) -> Split:
    """Return the split whose clips are none of the labels of another."""
    return "train" if own == "val" else "val"


def _report(
    job: CalibrateJob, own: Split, recognizer: Recognizer, data: Dataset
) -> list[dict[str, object]]:
    """Measure on episodes of one split; clips of val, or of train for val, are the others."""
    splits: tuple[Split, ...] = (own, _other(own))
    scorer = _scorer(job, recognizer, data, splits)
    clips = [clip for split in splits for clip in data.split(split)]
    plan = job.episodes
    rows = []
    for layout in (Layout(ways, shots) for ways in plan.ways for shots in plan.shots):
        episodes = drawn(
            data.split(own), layout, queries=plan.queries, episodes=plan.episodes, seed=plan.seed
        )
        for answers in ask(scorer, clips, episodes, seed=plan.seed):
            counts = [layout.shots] * layout.ways
            served = recognizer.calibration.at(counts, with_text=answers.with_text)
            rows.append(report(answers, served.scale, served.threshold))
    return rows


def _scorer(
    job: CalibrateJob, recognizer: Recognizer, data: Dataset, splits: Sequence[Split]
) -> EpisodeScorer:
    asked = as_evaluated(recognizer)
    clips = [clip for split in splits for clip in data.split(split)]
    stages = None
    if job.with_text:
        stages = stage_texts(data, splits, job.descriptions, asked.config.stages)
    sources = _sources(job, f"{data.name}-{'-'.join(splits)}", clips)
    return EpisodeScorer(asked, sources.of(asked), len(clips), stages=stages, half=sources.half)


def _sources(job: CalibrateJob, name: str, clips: Sequence[LabelledClip]) -> TokenSources:
    return TokenSources(name, clips, cache=job.cache, half=job.half)
