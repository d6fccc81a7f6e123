"""Fit what turns scores into probabilities and `unknown`, on base and val classes.

    python -m training.calibrate --checkpoint DIR --data INDEX.csv

It writes calibration.json into the checkpoint's folder (or into --out, as a new checkpoint).
Weights that were trained on the train classes are judged by the val classes alone, others by both;
the train classes give the mean feature; of several data sets the first. Test classes are never
read, except by --report test, which fits nothing and measures what is there. The last line is JSON.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from model.backbones.sources import folder_of
from model.calibration.fitted import Calibration, write_calibration
from model.checkpoint import load_recognizer, save_checkpoint
from model.recognizer import Recognizer
from training import cli
from training.data.datasets import Dataset, LabelledClip
from training.data.descriptions_file import stage_texts
from training.errors import InputError
from training.evaluation.calibration import ask, drawn, report
from training.evaluation.examination import Layout
from training.evaluation.fitting import FitPlan, fit_calibration, mean_feature
from training.evaluation.scoring import EpisodeScorer
from training.evaluation.variants import as_evaluated
from training.features.tokens import TokenSources
from training.meta.processes import half_precision

PLAN = FitPlan()


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add = parser.add_argument
    add("--checkpoint", default="compact", help="as KSHOT_CHECKPOINT")
    add("--backbone-weights", type=Path, help="a file; default: the hub")
    cli.add_data_options(parser, several=True)
    add("--splits", nargs="+", choices=("train", "val"), help="that judge; default: see above")
    add("--ways", type=int, nargs="+", default=list(PLAN.ways), help="default: %(default)s")
    add("--shots", type=int, nargs="+", default=list(PLAN.shots), help="default: %(default)s")
    add("--queries", type=int, default=PLAN.queries, help="of each class; default: %(default)s")
    add("--episodes", type=int, default=PLAN.episodes, help="of each size; default: %(default)s")
    add("--seed", type=int, default=PLAN.seed, help="of the episodes; default: %(default)s")
    add("--no-text", action="store_true", help="score by video alone")
    add("--cache", type=Path, help="trunk caches; default: clips are read each time")
    add("--out", type=Path, help="folder of a new checkpoint; a bare backbone needs it")
    add("--report", choices=("train", "val", "test"), help="fit nothing; measure on this split")
    cli.add_device_options(parser, precision="fp32")


def run(options: argparse.Namespace) -> dict[str, object]:
    """Fit and write a calibration, or report on the one that is there."""
    plan = FitPlan(
        ways=tuple(options.ways),
        shots=tuple(options.shots),
        queries=options.queries,
        episodes=options.episodes,
        seed=options.seed,
    )
    data = cli.data_choice(options).open()
    recognizer = load_recognizer(options.checkpoint, weights=options.backbone_weights)
    recognizer.to(torch.device(options.device))
    if options.report is not None:
        return {"split": options.report, "rows": _report(options, recognizer, data, plan)}
    out: Path | None = options.out or folder_of(options.checkpoint)
    if out is None:
        raise InputError(
            f"{options.checkpoint} is a bare backbone without a folder; name one with --out."
        )
    found = _fit(options, recognizer, data, plan)
    if options.out is not None:
        card = f"# {recognizer.name}, calibrated\n\n{found.source}\n"
        save_checkpoint(recognizer, out, card)
        name = load_recognizer(str(out), weights=options.backbone_weights).fingerprint
        found = found.model_copy(update={"fingerprint": name})
    write_calibration(out, found)
    return {"out": out.name, **found.model_dump(exclude={"mean"})}


def _fit(
    options: argparse.Namespace, recognizer: Recognizer, data: Dataset, plan: FitPlan
) -> Calibration:
    splits = options.splits or (["val"] if recognizer.trained else ["train", "val"])
    scorer = _scorer(options, recognizer, data, splits)
    train = data.split("train")
    sources = _sources(options, f"{data.name}-train", train)
    asked = as_evaluated(recognizer)
    return fit_calibration(
        recognizer,
        scorer,
        [clip for split in splits for clip in data.split(split)],
        mean_feature(asked, sources.of(asked), train),
        plan=plan,
        source=f"{data.name}, {' and '.join(splits)} classes",
    )


def _report(
    options: argparse.Namespace, recognizer: Recognizer, data: Dataset, plan: FitPlan
) -> list[dict[str, object]]:
    """Measure on episodes of one split; clips of val, or of train for val, are the others."""
    splits = [options.report, "train" if options.report == "val" else "val"]
    scorer = _scorer(options, recognizer, data, splits)
    clips = [clip for split in splits for clip in data.split(split)]
    own = data.split(options.report)
    rows = []
    for layout in (Layout(ways, shots) for ways in plan.ways for shots in plan.shots):
        episodes = drawn(own, layout, queries=plan.queries, episodes=plan.episodes, seed=plan.seed)
        for answers in ask(scorer, clips, episodes, seed=plan.seed):
            counts = [layout.shots] * layout.ways
            served = recognizer.calibration.at(counts, with_text=answers.with_text)
            rows.append(report(answers, served.scale, served.threshold))
    return rows


def _scorer(
    options: argparse.Namespace, recognizer: Recognizer, data: Dataset, splits: list[str]
) -> EpisodeScorer:
    asked = as_evaluated(recognizer)
    clips = [clip for split in splits for clip in data.split(split)]
    stages = None
    if not options.no_text:
        stages = stage_texts(data, splits, options.descriptions, asked.config.stages)
    sources = _sources(options, f"{data.name}-{'-'.join(splits)}", clips)
    return EpisodeScorer(asked, sources.of(asked), len(clips), stages=stages, half=sources.half)


def _sources(options: argparse.Namespace, name: str, clips: Sequence[LabelledClip]) -> TokenSources:
    half = half_precision(options.precision, torch.device(options.device).type)
    return TokenSources(name, clips, cache=options.cache, half=half)


COMMAND = cli.Command("calibrate", __doc__, declare, run)
main = partial(cli.main, COMMAND)

if __name__ == "__main__":
    sys.exit(main())
