"""Measure whether the diagnosis of a task tells the truth, on tasks of val classes.

    python -m training.diagnose --checkpoint compact --data INDEX.csv

The last line is JSON: leave-one-out accuracy beside that on other recordings, the share of clips
with a wrong label that are found, and what one clip more gives beside what was expected. `--ask
corrections` tells instead what correcting the ten least certain of 50 answers gains, beside ten by
chance; `--ask calibration` what a task's own clips, or queries that were none of its labels, do for
its calibration.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

from training import cli

SIZES = {
    "tasks": (200, "Tasks that are drawn."),
    "ways": (5, "Labels of a task."),
    "shots": (5, "Clips of a label."),
    "queries": (5, "Clips of a label that are asked about, of other recordings."),
    "seed": (0, "Seed of the drawing."),
}


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add = parser.add_argument
    add("--checkpoint", default="compact", help="What scores, written as KSHOT_CHECKPOINT.")
    add(
        "--backbone-weights",
        type=Path,
        help="File of the backbone's weights; without it, the hub's.",
    )
    cli.add_data_options(parser)
    for name, (usual, what) in SIZES.items():
        add(f"--{name}", type=int, default=usual, help=what)
    add(
        "--ask",
        choices=("diagnosis", "corrections", "calibration"),
        default="diagnosis",
        help="Of what the drawn tasks tell.",
    )
    add("--cache", type=Path, help="Folder of trunk caches; without it, tokens are held in memory.")
    add("--device", default="cpu", help="Where to compute.")


def run(options: argparse.Namespace) -> dict[str, object]:
    """Draw tasks, diagnose them, and compare with what happens."""
    from training.evaluation.diagnosing.diagnosis import DiagnoseJob, diagnose

    return diagnose(
        DiagnoseJob(
            checkpoint=options.checkpoint,
            backbone_weights=options.backbone_weights,
            data=cli.data_choice(options),
            tasks=options.tasks,
            ways=options.ways,
            shots=options.shots,
            queries=options.queries,
            seed=options.seed,
            ask=options.ask,
            cache=options.cache,
            device=options.device,
        )
    )


COMMAND = cli.Command("diagnose", __doc__, declare, run)
main = partial(cli.main, COMMAND)

if __name__ == "__main__":
    sys.exit(main())
