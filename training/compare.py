"""Compare methods at an equal budget: rows x seeds trained, chosen on val, read once on test.

    python -m training.compare --matrix FILE.json --data INDEX.csv|DIR --out DIR

Each cell is a training in OUT/<row>-seed<k>. After the last seed of a row, the weights that val
chose are read on val and on test, once, and kept in OUT/<row>.json. What is finished is not done
again, and a killed cell goes on where it was. OUT/report.html, table.md and table.json show all
rows that are finished; differences are to the first row. A cell has no calibration: run
training.calibrate on one that is to be served. The last line is JSON. A matrix:

"""

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

from training import cli
from training.evaluation import matrix


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add = parser.add_argument
    add(
        "--matrix",
        type=Path,
        required=True,
        help="File that names the rows, the seeds, the budget and the evaluation.",
    )
    cli.add_data_options(parser)
    add(
        "--weights",
        nargs="+",
        default=[],
        metavar="BACKBONE=FILE",
        help="Files of backbones' weights; without one, the hub's.",
    )
    add("--cache", type=Path, help="Folder of trunk caches; without it, one in --out.")
    add("--out", type=Path, required=True, help="Folder of the cells, the rows and the tables.")
    cli.add_device_options(parser)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Compare as the command line says."""
    from training.evaluation.compare import CompareJob, compare

    weights = cli.pairs("--weights", options.weights, "BACKBONE=FILE")
    job = CompareJob(
        matrix=matrix.read_matrix(options.matrix),
        data=cli.data_choice(options),
        out=options.out,
        weights={backbone: Path(file) for backbone, file in weights.items()},
        descriptions=options.descriptions,
        cache=options.cache,
        device=options.device,
        precision=options.precision,
        command=options.command,
    )
    return compare(job)


COMMAND = cli.Command("compare", f"{__doc__}{matrix.__doc__}", declare, run)
main = partial(cli.main, COMMAND)

if __name__ == "__main__":
    sys.exit(main())
