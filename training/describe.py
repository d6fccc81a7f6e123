"""Write sentences of the stages of all classes of a data set, by a language model.

    python -m training.describe --data DATA --out FILE.yaml

Asks the endpoint that the service asks: KSHOT_LLM_BASE_URL, KSHOT_LLM_MODEL, OPENAI_API_KEY. Labels
that the file already describes are not asked again. The last line is JSON.
"""

import argparse
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path

from training import cli
from training.data.listings import SPLITS
from training.errors import IncompleteError


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="An index.csv, a folder of split files, or a folder of clips.",
    )
    parser.add_argument(
        "--names", type=Path, help="File with the names of classes that are only numbered."
    )
    parser.add_argument(
        "--splits",
        nargs="+",
        choices=SPLITS,
        default=list(SPLITS),
        help="Splits whose labels are described.",
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="File of the sentences, .yaml or .json; it is added to.",
    )
    parser.add_argument("--concurrency", type=int, default=4, help="Labels asked at once.")


def run(options: argparse.Namespace) -> dict[str, object]:
    """Run the command.

    Raises:
        InputError: As `describe`, or some labels got no description.
    """
    from training.data.describing import DescribeJob, describe

    job = DescribeJob(
        data=options.data,
        names=options.names,
        splits=tuple(options.splits),
        out=options.out,
        concurrency=options.concurrency,
    )
    result = describe(job)
    told = {"out": str(job.out)} | asdict(result)
    if result.failed:
        label, reason = next(iter(result.failed.items()))
        raise IncompleteError(
            f"{len(result.failed)} of {result.labels} labels got no description, first {label!r} "
            f"({reason}); run the command again, or write them yourself.",
            told,
        )
    return told


COMMAND = cli.Command("describe", __doc__, declare, run)
main = partial(cli.main, COMMAND)

if __name__ == "__main__":
    sys.exit(main())
