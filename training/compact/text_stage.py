"""Teach a compact checkpoint motions and words; its image tower stays as it is.

    python -m training.compact.text_stage --start compact --frames DIR --out DIR

is the last part of `training.pretrain` by itself. Adapters learn to name the motions of synthetic
clips, then the text tower learns captions of those clips, and the training labels of the folders
that have an index.csv. The last line is JSON.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from training import cli
from training.compact.recipes import MotionRecipe, TextRecipe
from training.errors import refusal


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--start", default="compact", help="Compact checkpoint to begin with.")
    parser.add_argument(
        "--frames",
        type=Path,
        nargs="+",
        default=[],
        help="Folders of labelled clips beside the synthetic ones.",
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="Folder of the checkpoint to write."
    )
    add_recipe_options(parser)
    parser.add_argument(
        "--keep",
        type=float,
        default=0.0,
        help="Let the adapters of --start learn on, held by this weight to their features of "
        "labelled clips; 0 begins with new ones.",
    )
    parser.add_argument("--seed", type=int, default=0, help="Seed of all that is drawn by chance.")
    cli.add_device_options(parser)


def add_recipe_options(parser: argparse.ArgumentParser) -> None:
    """Add the lengths of both parts to a command line."""
    motions, text = MotionRecipe(), TextRecipe()
    parser.add_argument(
        "--motion-clips",
        type=int,
        default=motions.clips,
        help="Synthetic clips that teach motions.",
    )
    parser.add_argument(
        "--motion-steps", type=int, default=motions.steps, help="Steps of the optimiser on motions."
    )
    parser.add_argument(
        "--text-steps", type=int, default=text.steps, help="Steps of the optimiser on text."
    )


def recipes(options: argparse.Namespace, *, keep: float = 0.0) -> tuple[MotionRecipe, TextRecipe]:
    """Return the recipes of both parts that a command line asks for.

    Raises:
        InputError: A value is out of range.
    """
    try:
        motions = MotionRecipe(
            clips=options.motion_clips, steps=options.motion_steps, seed=options.seed, keep=keep
        )
        return motions, TextRecipe(steps=options.text_steps, seed=options.seed)
    except ValidationError as error:
        raise refusal(error) from error


def run(options: argparse.Namespace) -> dict[str, object]:
    """Run the command."""
    motions, text = recipes(options, keep=options.keep)

    from training.compact.teaching import TeachJob, teach_checkpoint
    from training.meta.processes import half_precision

    job = TeachJob(
        start=options.start,
        frames=tuple(options.frames),
        out=options.out,
        motions=motions,
        text=text,
        device=options.device,
        half=half_precision(options.precision, options.device),
    )
    return teach_checkpoint(job)


COMMAND = cli.Command("compact.text_stage", __doc__, declare, run)
main = partial(cli.main, COMMAND)

if __name__ == "__main__":
    sys.exit(main())
