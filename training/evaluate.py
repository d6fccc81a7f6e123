"""Accuracy of recognisers over many episodes of one split, all on the same episodes.

python -m training.evaluate --checkpoint compact --data INDEX.csv --split test --shots 1 5

Several checkpoints are seeds of one method. `--contexts` gives the effect of what queries attend
to; an answer that depends on other queries (`joint`) is labelled transductive, and never served.
Tables come first; the last line is JSON.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

import torch

from model.checkpoint import load_recognizer
from model.config import QueryContext
from model.errors import BackboneError, CheckpointError, ClipError, MethodError
from model.recognizer import Recognizer
from training.data.datasets import MAX_MISSING, Dataset, open_dataset
from training.data.descriptions_file import stage_texts
from training.data.episode_list import read_episode_list, write_episode_list
from training.data.episodes import Episode
from training.errors import InputError
from training.evaluation.accuracy import Tally
from training.evaluation.layouts import Layout, by_layout, draw_layouts
from training.evaluation.readings import Examination, Kind, Reading, over, row, seeds_of, seeds_row
from training.features.tokens import TokenSources
from training.meta.processes import half_precision

SPLIT = "test"
DRAWN = {"ways": [5], "shots": [1, 5], "queries": 5, "episodes": 3000, "seed": 0}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description=__doc__)
    add = parser.add_argument
    add("--checkpoint", nargs="+", default=["compact"], help="as KSHOT_CHECKPOINT; several: seeds")
    add("--backbone-weights", type=Path, help="a file; default: the hub")
    add("--data", type=Path, required=True, help="as training.data.datasets reads it")
    add("--root", type=Path, help="of the clips that split files list")
    add("--names", type=Path, help="of the labels, where split files have ids")
    add("--max-missing", type=float, default=MAX_MISSING, help="share of files")
    add("--split", help=f"default: {SPLIT}")
    for name in ("ways", "shots"):
        add(f"--{name}", type=int, nargs="+", help=f"default: {DRAWN[name]}")
    add("--queries", type=int, help=f"of each class; default: {DRAWN['queries']}")
    for name in ("episodes", "seed"):
        add(f"--{name}", type=int, help=f"default: {DRAWN[name]}")
    add("--list", type=Path, help="answer these episodes, and draw none")
    add("--write-list", type=Path, help="write the episodes, to publish beside the number")
    contexts = get_args(QueryContext)
    add("--contexts", nargs="+", choices=contexts, default=[], help="besides the checkpoint's own")
    add("--descriptions", type=Path, help="stage texts; default: the template's")
    add("--no-text", action="store_true", help="score by video alone")
    add("--cache", type=Path, help="trunk caches; default: tokens are held in memory")
    add("--plots", type=Path, help="a folder for pictures (needs matplotlib)")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--precision", choices=("auto", "bf16", "fp32"), default="fp32", help="fp32 is served")
    add("--teacher", default="timm:vit_tiny_patch16_224")
    add("--teacher-weights", type=Path, help="also evaluate the bare teacher")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 2 for input that does not fit."""
    options = parse(arguments)
    try:
        result = run(options)
    except (InputError, BackboneError, CheckpointError, ClipError, MethodError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"evaluate: a file cannot be written or read ({error}); see to it.", file=sys.stderr)
        return 2
    print(json.dumps(result))
    return 0


def run(options: argparse.Namespace) -> dict[str, object]:
    """Evaluate the checkpoints, and the teacher where its weights are given."""
    if options.plots is not None:
        check_plots(options.plots)
    data = open_dataset(
        options.data, root=options.root, names=options.names, max_missing=options.max_missing
    )
    split, layouts = choose_episodes(options, data)
    if options.write_list is not None:
        listed = [episode for episodes in layouts.values() for episode in episodes]
        write_episode_list(options.write_list, data, split, listed)
    device = torch.device(options.device)
    half = half_precision(options.precision, device.type)
    sources = TokenSources(
        f"{data.name}-{split}", data.split(split), cache=options.cache, half=half
    )
    stages = None if options.no_text else stage_texts(data, [split], options.descriptions)
    examination = Examination(layouts, data.labels(split), sources, stages)
    readings = read_all(options, examination, device)
    show(readings)
    pictures = [] if options.plots is None else draw(readings, data.labels(split), options.plots)
    seeds = {kind: found for kind, found in seeds_of(readings).items() if len(found) > 1}
    return {
        "split": split,
        **{name: getattr(options, name) for name in DRAWN},
        "list": None if options.list is None else options.list.name,
        "labels": data.labels(split),
        "rows": [row(reading) for reading in readings],
        "over_seeds": [seeds_row(kind, found) for kind, found in seeds.items()],
        "plots": [picture.name for picture in pictures],
    }


def choose_episodes(
    options: argparse.Namespace, data: Dataset
) -> tuple[str, dict[Layout, list[Episode]]]:
    """Return the split and its episodes: a list's, or drawn ones.

    Raises:
        InputError: a list with sizes besides, sizes that do not fit, or a list that does not.
    """
    given = [name for name in DRAWN if getattr(options, name) is not None]
    if options.list is not None:
        if given:
            raise InputError(f"{options.list} has episodes of its own; leave out --{given[0]}.")
        listed = read_episode_list(options.list, data)
        if options.split not in (None, listed.split):
            raise InputError(
                f"{options.list} lists episodes of {listed.split}, not of {options.split}; leave "
                "out --split."
            )
        if not listed.same_clips:
            print("The split has other clips than when the list was written.", file=sys.stderr)
        return listed.split, by_layout(listed.episodes)
    for name, value in DRAWN.items():
        if name not in given:
            setattr(options, name, value)
    split = options.split or SPLIT
    wanted = [Layout(ways, shots) for ways in options.ways for shots in options.shots]
    sizes = {name: getattr(options, name) for name in ("queries", "episodes", "seed")}
    return split, draw_layouts(data.split(split), wanted, **sizes)


def read_all(
    options: argparse.Namespace, examination: Examination, device: torch.device
) -> list[Reading]:
    """Read every checkpoint, then the teacher.

    Raises:
        InputError: checkpoints of several methods.
    """
    readings: list[Reading] = []
    first: Recognizer | None = None
    for source in options.checkpoint:
        recognizer = load_recognizer(source, weights=options.backbone_weights).to(device)
        first = first or recognizer
        if recognizer.config != first.config:
            raise InputError(
                f"{options.checkpoint[0]} and {source} are no seeds of one method; evaluate them "
                "one at a time."
            )
        readings += examination.read(
            recognizer, options.contexts, checkpoint=source, method="checkpoint"
        )
    if options.teacher_weights is not None:
        teacher = load_recognizer(options.teacher, weights=options.teacher_weights).to(device)
        readings += examination.read(teacher, checkpoint=options.teacher, method="teacher")
    return readings


def show(readings: Sequence[Reading]) -> None:
    """Print the figures for people."""
    for reading in readings:
        found = reading.tally.accuracy
        figure = f"{found.mean:.1f} +- {found.interval:.1f} %"
        print(f"{reading.checkpoint}: {reading.kind}: {figure}")
        classes = [f"{label} {share:.1f}" for label, share in reading.tally.by_class.items()]
        print(f"    by class: {', '.join(classes)}")
    for kind, of_kind in seeds_of(readings).items():
        if len(of_kind) > 1:
            seeds, joined = over(of_kind), Tally.over_seeds([one.tally for one in of_kind])
            print(
                f"{seeds.seeds} seeds: {kind}: {seeds.mean:.1f} +- {seeds.interval:.1f} % over "
                f"seeds, +- {joined.accuracy.interval:.1f} over episodes"
            )


def check_plots(folder: Path) -> None:
    """Find out before the work whether pictures can be drawn.

    Raises:
        InputError: they cannot.
    """
    if find_spec("matplotlib") is None:
        raise InputError("Pictures need matplotlib; install kshot[train], or leave out --plots.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made ({error.strerror}); give another.") from error


def draw(readings: Sequence[Reading], labels: Sequence[str], folder: Path) -> list[Path]:
    """Draw a confusion matrix of each kind, and the curve over ways where there are several."""
    # Not at the top: matplotlib is an extra, and figures alone do not need it.
    from training.evaluation.report import draw_confusion, draw_lines

    pictures: list[Path] = []
    lines: dict[str, list[tuple[float, float, float]]] = {}
    for kind, found in seeds_of(readings).items():
        tally, layout = Tally.over_seeds([reading.tally for reading in found]), kind.layout
        name = f"{layout.ways}way-{layout.shots}shot-{kind.query_context}"
        pictures.append(folder / f"confusion-{kind.method}-{name}.png")
        draw_confusion(labels, tally.confusion, pictures[-1])
        lines.setdefault(line_name(kind), []).append((layout.ways, *reach(found, tally)))
    if len({reading.kind.layout.ways for reading in readings}) > 1:
        pictures.append(folder / "ways.png")
        ordered = {name: sorted(points) for name, points in lines.items()}
        draw_lines(ordered, pictures[-1], across="ways")
    return pictures


def line_name(kind: Kind) -> str:
    """Name a line of the curve over ways."""
    joint = ", transductive" if kind.transductive else ""
    return f"{kind.method}, {kind.layout.shots}-shot, {kind.query_context}{joint}"


def reach(found: Sequence[Reading], tally: Tally) -> tuple[float, float]:
    """Return mean and half interval: over seeds where there are several, else over episodes."""
    seeds = over(found)
    return seeds.mean, seeds.interval if seeds.seeds > 1 else tally.accuracy.interval


if __name__ == "__main__":
    sys.exit(main())
