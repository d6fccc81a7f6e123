"""Write a data set of synthetic labels that differ in the order of their motions alone.

    python -m training.synthetic --out DIR --families 60 --clips 20

A family is one mover and one trio of motions; its labels are orders of the trio. With `--carried` a
motion begins where the last one ended, as in the demo. A killed command goes on when it is started
again. The last line is JSON.
"""

import argparse
import os
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from training import cli
from training.data.listings import SPLITS
from training.errors import InputError, refusal
from training.synthetic.order_set import OrderSet, divided, write_order_set


@dataclass(frozen=True, slots=True, kw_only=True)
class Values:
    """What the command line asks for."""

    out: Path
    order_set: OrderSet
    processes: int  # that render at once


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    usual = OrderSet(families=(1, 1, 1))
    parser.add_argument(
        "--out", type=Path, required=True, help="Folder of the data set, made when it is not there."
    )
    count = parser.add_mutually_exclusive_group(required=True)
    count.add_argument(
        "--families",
        type=int,
        help="Families of labels in all; 70, 15 and 15 %% of them are train, val and test.",
    )
    count.add_argument(
        "--split-families",
        type=int,
        nargs=3,
        metavar=("TRAIN", "VAL", "TEST"),
        help="Families of labels of each split.",
    )
    parser.add_argument(
        "--orders", default="6", help="Labels of a family: 6, or a range such as 5..6."
    )
    parser.add_argument("--clips", type=int, default=usual.clips, help="Clips of each label.")
    parser.add_argument(
        "--carried", action="store_true", help="Let a motion begin where the one before it ended."
    )
    parser.add_argument(
        "--seed", type=int, default=usual.seed, help="Seed of all that is drawn by chance."
    )
    parser.add_argument(
        "--size", type=int, default=usual.size, help="Height and width of a frame, in pixels."
    )
    parser.add_argument(
        "--seconds", type=float, default=usual.seconds, help="Length of a clip, in seconds."
    )
    parser.add_argument("--fps", type=int, default=usual.fps, help="Frames a second of a clip.")
    cores = len(os.sched_getaffinity(0))
    parser.add_argument(
        "--processes", type=int, default=cores, help="Processes that render at once."
    )


def read_values(options: argparse.Namespace) -> Values:
    """Return the values of parsed options.

    Raises:
        InputError: They make no order set.
    """
    try:
        order_set = OrderSet(
            families=options.split_families or divided(options.families),
            orders=_orders(options.orders),
            clips=options.clips,
            carried=options.carried,
            seed=options.seed,
            size=options.size,
            seconds=options.seconds,
            fps=options.fps,
        )
    except ValidationError as error:
        raise refusal(error) from error
    return Values(out=options.out, order_set=order_set, processes=max(1, options.processes))


def synthesize(values: Values) -> dict[str, object]:
    """Write the data set; return its counts.

    Raises:
        InputError: As `write_order_set`.
    """
    start = time.monotonic()
    families = write_order_set(values.out, values.order_set, processes=values.processes)
    labels = sum(len(family.actions) for family in families)
    return {
        "families": {s: sum(family.split == s for family in families) for s in SPLITS},
        "labels": labels,
        "clips": labels * values.order_set.clips,
        "carried": values.order_set.carried,
        "seconds": round(time.monotonic() - start, 1),
        "out": values.out.name,
    }


def _orders(text: str) -> tuple[int, int]:
    low, _, high = text.partition("..")
    try:
        return int(low), int(high or low)
    except ValueError as error:
        raise InputError(f"--orders is {text!r}; give 6, or a range 5..6.") from error


def run(options: argparse.Namespace) -> dict[str, object]:
    """Run the command."""
    return synthesize(read_values(options))


COMMAND = cli.Command("synthetic", __doc__, declare, run)
main = partial(cli.main, COMMAND)

if __name__ == "__main__":
    sys.exit(main())
