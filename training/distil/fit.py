"""Distil a causal video tower from random weights, with a video teacher that answers every batch.

    python -m training.distil.fit --video-teacher FILE.npz --clips INDEX.csv ... --pictures DIR \
        --leave-out golf walk --steps 4000 --out DIR

A killed run goes on when it is started again; a finished one goes on with more --steps. It is
watched on the labels that are left out. The checkpoint has no text tower. The last line of stdout
is JSON.
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

STEP_OPTIONS = {
    "pictures": "Pictures of a step.",
    "clips": "Real clips of a step.",
    "synthetic": "Synthetic actions of a step.",
    "frames": "Frames of each.",
    "apart": "Steps in which each block learns alone.",
    "seed": "Seed of all that is drawn by chance.",
}


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add, recipe = parser.add_argument, VideoRecipe()
    text = "File (npz) of MoViNet-A0-Stream's weights."
    add("--video-teacher", type=Path, required=True, help=text)
    text = "Lists (index.csv) of clips; test is never read."
    add("--clips", type=Path, nargs="+", default=[], help=text)
    add("--pictures", type=Path, nargs="+", default=[], help="Folders of pictures.")
    add("--leave-out", nargs="+", default=[], help="Labels that stay unseen, and what is related.")
    add("--steps", type=int, default=4000, help="Steps of the optimiser, those done included.")
    add("--check-every", type=int, default=250, help="Steps between two looks at unseen classes.")
    add("--max-seconds", type=float, default=float("inf"), help="Stop then; to be gone on with.")
    add("--out", type=Path, required=True, help="Folder of the state and of the checkpoint.")
    for name, text in STEP_OPTIONS.items():
        option = f"--{name}" if name not in ("clips", "pictures") else f"--{name}-a-step"
        add(option, type=int, default=getattr(recipe, name), help=text)
    add("--size", type=int, default=CausalConfig().size, help="Pixels of a side of its frames.")
    text = "The same of what is served: things are larger in views than in whole frames."
    add("--served-size", type=int, default=192, help=text)


def job_of(options: argparse.Namespace) -> StudentJob:
    """Return what parsed options ask for.

    Raises:
        InputError: A value is out of range.
    """
    if options.steps < 1 or options.check_every < 1:
        raise InputError("--steps and --check-every are 1 or more; give such numbers.")
    given = vars(options)
    sizes = {name: given.get(f"{name}_a_step", given[name]) for name in STEP_OPTIONS}
    try:
        recipe = VideoRecipe(**sizes)
        tower, served = map(_tower, (options.size, options.served_size))
    except ValidationError as error:
        raise refusal(error) from error
    return StudentJob(
        teacher=options.video_teacher,
        clips=tuple(options.clips),
        pictures=tuple(options.pictures),
        leave_out=tuple(options.leave_out),
        steps=options.steps,
        check_every=options.check_every,
        max_seconds=options.max_seconds,
        tower=tower,
        served=served.size,
        recipe=recipe,
        out=options.out,
    )


def _tower(size: int) -> CausalConfig:
    return TypeAdapter(CausalConfig).validate_python({"size": size})


def run(options: argparse.Namespace) -> dict[str, object]:
    """Run the command."""
    job = job_of(options)

    from training.distil.distilling import distil

    return distil(job)


COMMAND = cli.Command("distil.fit", __doc__, declare, run)
main = partial(cli.main, COMMAND)

if __name__ == "__main__":
    sys.exit(main())
