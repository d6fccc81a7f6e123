"""Accuracy of recognisers over many episodes of one split, all on the same episodes.

    python -m training.evaluate --checkpoint compact --data INDEX.csv --split test --shots 1 5

Several checkpoints are seeds of one method. `--contexts` gives the effect of what queries attend
to; an answer that depends on other queries (`joint`) is labelled transductive, and never served.
Tables come first; the last line is JSON.
"""

import argparse
import sys
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from model.config.method import QueryContext
from training import cli
from training.data.episodes import DrawnEpisodes
from training.errors import InputError

if TYPE_CHECKING:
    from training.evaluation.examination import Examination, Subject

REPORT = "report.html"
SIZES = {field.name: field.default for field in fields(DrawnEpisodes)}
DRAWN = {
    "ways": "Labels of a drawn episode; several are asked one after another. Default: 5, or all.",
    "shots": "Support clips of a label; several are asked one after another.",
    "queries": "Query clips of a label.",
    "episodes": "Episodes of each number of ways and shots.",
    "seed": "Seed of the drawing.",
}


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add = parser.add_argument
    add(
        "--checkpoint",
        nargs="+",
        default=["compact"],
        help="Who is asked, written as KSHOT_CHECKPOINT; several are seeds of one method.",
    )
    add(
        "--backbone-weights",
        type=Path,
        help="File of the backbone's weights; without it, the hub's.",
    )
    cli.add_data_options(parser)
    add("--split", help="Whose labels are asked: train, val, test or all; without it, test.")
    _declare_episodes(parser)
    contexts = get_args(QueryContext)
    add(
        "--contexts",
        nargs="+",
        choices=contexts,
        default=[],
        help="Query contexts to ask besides the checkpoint's own.",
    )
    add("--no-text", action="store_true", help="Score by video alone, without class text.")
    add("--cache", type=Path, help="Folder of trunk caches; without it, tokens are held in memory.")
    add("--plots", type=Path, help="Folder for report.html, the results as one page.")
    cli.add_device_options(parser, precision="fp32")
    add(
        "--teacher",
        default="timm:vit_tiny_patch16_224",
        help="Backbone to compare with, as timm:NAME.",
    )
    add(
        "--teacher-weights",
        type=Path,
        help="File of the teacher's weights; with it, the bare teacher is asked too.",
    )


def _declare_episodes(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    for name, default in SIZES.items():
        several = "+" if isinstance(default, tuple) else None
        usual = f" Default: {default}." if default != () else ""
        add(f"--{name}", type=int, nargs=several, help=f"{DRAWN[name]}{usual}")
    add("--list", type=Path, help="File of published episodes to answer, in place of drawn ones.")
    add(
        "--write-list",
        type=Path,
        help="File to write the episodes to, to publish beside the number.",
    )


def run(options: argparse.Namespace) -> dict[str, object]:
    """Evaluate the checkpoints, and the teacher where its weights are given."""
    import torch

    from training.evaluation.examination import evaluate
    from training.evaluation.questions import ExaminationJob, open_examination
    from training.evaluation.results import document, show
    from training.meta.card import environment
    from training.meta.processes import half_precision
    from training.report.page import write_report

    if options.plots is not None:
        check_plots(options.plots)
    episodes = chosen_episodes(options)
    device = torch.device(options.device)
    job = ExaminationJob(
        data=cli.data_choice(options),
        split=options.split,
        episodes=episodes,
        written=options.write_list,
        descriptions=options.descriptions,
        with_text=not options.no_text,
        cache=options.cache,
        half=half_precision(options.precision, device.type),
    )
    examination = open_examination(job)
    results = evaluate(examination, subjects(options), contexts=options.contexts, device=device)
    show(results)
    measured = {"data": examination.data, "environment": environment(device)}
    told = {
        "measured": {"command": options.command, **measured},
        "split": examination.split,
        **_sizes(episodes, examination),
        "list": episodes.name if isinstance(episodes, Path) else None,
        "labels": examination.labels,
        **document(results),
    }
    if options.plots is not None:
        write_report(told, options.plots / REPORT)
    return told | {"plots": [] if options.plots is None else [REPORT]}


def _sizes(episodes: DrawnEpisodes | Path, examination: "Examination") -> dict[str, object]:
    """Return the sizes of drawn episodes as they were asked; a list has its own."""
    if isinstance(episodes, Path):
        return dict.fromkeys(SIZES)
    ways = sorted({layout.ways for layout in examination.layouts})
    return asdict(episodes) | {"ways": ways}


def subjects(options: argparse.Namespace) -> list["Subject"]:
    """Return who is asked: every checkpoint, then the teacher."""
    from training.evaluation.examination import Subject

    weights = options.backbone_weights
    found = [
        Subject(name=source, method="checkpoint", source=source, weights=weights)
        for source in options.checkpoint
    ]
    if (weights := options.teacher_weights) is not None:
        name = options.teacher
        found.append(Subject(name=name, method="teacher", source=name, weights=weights))
    return found


def chosen_episodes(options: argparse.Namespace) -> DrawnEpisodes | Path:
    """Return the list, or how episodes are drawn.

    Raises:
        InputError: A list with sizes besides.
    """
    given = {name: value for name in SIZES if (value := getattr(options, name)) is not None}
    if options.list is None:
        sizes: dict[str, Any] = {
            n: tuple(v) if isinstance(v, list) else v for n, v in given.items()
        }
        return replace(DrawnEpisodes(), **sizes)
    if given:
        raise InputError(
            f"{options.list} has episodes of its own; leave out --{next(iter(given))}."
        )
    return Path(options.list)


def check_plots(folder: Path) -> None:
    """Find out before the work whether there is a folder for the report.

    Raises:
        InputError: There is none.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made ({error.strerror}); give another.") from error


COMMAND = cli.Command("evaluate", __doc__, declare, run)
main = partial(cli.main, COMMAND)

if __name__ == "__main__":
    sys.exit(main())
