"""Fit what turns scores into probabilities and `unknown`, on base and val classes.

    python -m training.calibrate --checkpoint DIR --data INDEX.csv

It writes calibration.json into the checkpoint's folder (or into --out, as a new checkpoint).
Weights that were trained on the train classes are judged by the val classes alone, others by both;
the train classes give the mean feature; of several data sets the first. Test classes are never
read, except by --report test, which fits nothing and measures what is there. The last line is JSON.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

from training import cli
from training.data.episodes import CALIBRATING, DrawnEpisodes
from training.data.listings import SPLITS

SIZES = {
    "ways": "Labels of an episode; several are asked one after another.",
    "shots": "Support clips of a label; several are asked one after another.",
    "queries": "Query clips of a label.",
    "episodes": "Episodes of each number of ways and shots.",
    "seed": "Seed of the drawing.",
}


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add = parser.add_argument
    add("--checkpoint", default="compact", help="Whose calibration, written as KSHOT_CHECKPOINT.")
    add(
        "--backbone-weights",
        type=Path,
        help="File of the backbone's weights; without it, the hub's.",
    )
    cli.add_data_options(parser, several=True)
    add(
        "--splits",
        nargs="+",
        choices=("train", "val"),
        help="Splits whose labels judge; without it, val, and train where it was not trained on.",
    )
    for name, what in SIZES.items():
        usual = getattr(CALIBRATING, name)
        if isinstance(usual, tuple):
            add(f"--{name}", type=int, nargs="+", default=list(usual), help=what)
        else:
            add(f"--{name}", type=int, default=usual, help=what)
    add("--no-text", action="store_true", help="Score by video alone, without class text.")
    add("--cache", type=Path, help="Folder of trunk caches; without it, tokens are held in memory.")
    add(
        "--out",
        type=Path,
        help="Folder of a new checkpoint; a bare backbone and the packaged checkpoint need one.",
    )
    add(
        "--report",
        choices=SPLITS,
        help="Fit nothing, and measure on this split.",
    )
    cli.add_device_options(parser, precision="fp32")


def run(options: argparse.Namespace) -> dict[str, object]:
    """Fit and write a calibration, or report on the one that is there."""
    from training.evaluation.calibrate import CalibrateJob, calibrate
    from training.meta.processes import half_precision

    job = CalibrateJob(
        checkpoint=options.checkpoint,
        backbone_weights=options.backbone_weights,
        data=cli.data_choice(options),
        episodes=DrawnEpisodes(
            ways=tuple(options.ways),
            shots=tuple(options.shots),
            queries=options.queries,
            episodes=options.episodes,
            seed=options.seed,
        ),
        splits=None if options.splits is None else tuple(options.splits),
        descriptions=options.descriptions,
        with_text=not options.no_text,
        cache=options.cache,
        out=options.out,
        report=options.report,
        device=options.device,
        half=half_precision(options.precision, options.device),
    )
    return calibrate(job)


COMMAND = cli.Command("calibrate", __doc__, declare, run)
main = partial(cli.main, COMMAND)

if __name__ == "__main__":
    sys.exit(main())
