"""Distil a causal video tower from random weights, on targets that the teacher has answered.

    python -m training.distil.fit --targets DIR --held-out INDEX.csv --steps 20000 --out DIR

A killed run goes on when it is started again; a finished one goes on with more --steps. Targets may
still be in the making. It is watched on the classes that were left out of the targets. The
checkpoint has no text tower yet. The last line of stdout is JSON.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from model.config.towers import CausalConfig
from training import cli
from training.distil.recipe import StudentJob, VideoRecipe
from training.errors import InputError, refusal

TOWER_OPTIONS = ("size", "features", "widths", "depths")
STEP_OPTIONS = {
    "pictures": "Pictures of a step.",
    "window": "Frames of each picture that are seen.",
    "clips": "Real and synthetic clips of a step.",
    "seed": "Seed of all that is drawn by chance.",
}


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add, recipe, tower = parser.add_argument, VideoRecipe(), CausalConfig()
    add("--targets", type=Path, required=True, help="Folder that training.distil.targets fills.")
    add(
        "--held-out",
        type=Path,
        nargs="+",
        default=[],
        help="Lists (index.csv) that have the unseen labels.",
    )
    add("--steps", type=int, default=6000, help="Steps of the optimiser, those done included.")
    add("--check-every", type=int, default=500, help="Steps between two looks at unseen classes.")
    add("--max-seconds", type=float, default=float("inf"), help="Stop then; to be gone on with.")
    add("--out", type=Path, required=True, help="Folder of the state and of the checkpoint.")
    for name, text in STEP_OPTIONS.items():
        add(f"--{name}", type=int, default=getattr(recipe, name), help=text)
    add("--lr", type=float, default=recipe.lr, help="Rate of learning of matrices.")
    add("--size", type=int, default=tower.size, help="Pixels of a side of the student's frames.")
    add("--features", type=int, default=tower.features, help="Width of a frame's features.")
    for name in ("widths", "depths"):
        text = f"{name.capitalize()} of the four stages."
        add(f"--{name}", type=int, nargs=4, default=getattr(tower, name), help=text)


def job_of(options: argparse.Namespace) -> StudentJob:
    """Return what parsed options ask for.

    Raises:
        InputError: A value is out of range.
    """
    if options.steps < 1 or options.check_every < 1:
        raise InputError("--steps and --check-every are 1 or more; give such numbers.")
    try:
        recipe = VideoRecipe(
            lr=options.lr, **{name: getattr(options, name) for name in STEP_OPTIONS}
        )
    except ValidationError as error:
        raise refusal(error) from error
    sizes = {name: getattr(options, name) for name in TOWER_OPTIONS}
    try:
        tower = TypeAdapter(CausalConfig).validate_python(sizes)
    except ValidationError as error:
        raise refusal(error) from error
    return StudentJob(
        targets=options.targets,
        held_out=tuple(options.held_out),
        steps=options.steps,
        check_every=options.check_every,
        max_seconds=options.max_seconds,
        tower=tower,
        recipe=recipe,
        out=options.out,
    )


def run(options: argparse.Namespace) -> dict[str, object]:
    """Run the command."""
    job = job_of(options)

    from training.distil.distilling import distil

    return distil(job)


COMMAND = cli.Command("distil.fit", __doc__, declare, run)
main = partial(cli.main, COMMAND)

if __name__ == "__main__":
    sys.exit(main())
