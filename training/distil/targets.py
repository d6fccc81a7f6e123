"""Ask the video teacher about clips, moving pictures and synthetic actions, and keep its answers.

    python -m training.distil.targets --video-teacher FILE.npz --clips INDEX.csv --pictures DIR \
        --synthetic 1200 --leave-out golf walk --out DIR

A killed run goes on when it is started again. The last line of stdout is JSON.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

from training import cli
from training.distil.recipe import TargetsJob
from training.errors import InputError


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add = parser.add_argument
    add(
        "--video-teacher",
        type=Path,
        required=True,
        help="File (npz) of MoViNet-A0-Stream's weights.",
    )
    add(
        "--clips",
        type=Path,
        nargs="+",
        default=[],
        help="Lists (index.csv) of clips; test is never read.",
    )
    add("--pictures", type=Path, nargs="+", default=[], help="Folders of pictures.")
    add("--synthetic", type=int, default=0, help="Synthetic actions of a draw.")
    add("--leave-out", nargs="+", default=[], help="Labels that stay unseen, and what is related.")
    add("--frames", type=int, default=8, help="Frames of a clip.")
    add("--side", type=int, default=128, help="Pixels of the frames kept for the student.")
    add("--draws", type=int, default=2, help="Views of each source; of clips, the first is plain.")
    add("--seed", type=int, default=0, help="Seed of all that is drawn by chance.")
    add("--out", type=Path, required=True, help="Folder of the answers.")


def job_of(options: argparse.Namespace) -> TargetsJob:
    """Return what parsed options ask for.

    Raises:
        InputError: A number is below 1.
    """
    for name in ("frames", "side", "draws"):
        if getattr(options, name) < 1:
            raise InputError(f"--{name} is {getattr(options, name)}; give 1 or more.")
    return TargetsJob(
        teacher=options.video_teacher,
        clips=tuple(options.clips),
        pictures=tuple(options.pictures),
        synthetic=options.synthetic,
        leave_out=tuple(options.leave_out),
        frames=options.frames,
        side=options.side,
        draws=options.draws,
        seed=options.seed,
        out=options.out,
    )


def run(options: argparse.Namespace) -> dict[str, object]:
    """Run the command."""
    job = job_of(options)

    from training.distil.asking import make_targets

    return make_targets(job)


COMMAND = cli.Command("distil.targets", __doc__, declare, run)
main = partial(cli.main, COMMAND)

if __name__ == "__main__":
    sys.exit(main())
