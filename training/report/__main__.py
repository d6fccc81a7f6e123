"""Write results that were kept as one HTML page.

    python -m training.report OUT/table.json --out report.html

FILE is the table.json of training.compare, or the JSON line that training.evaluate prints last, in
a file. Both commands write the page themselves too; this makes it again. The last line is JSON.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

from training import cli


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("results", type=Path, metavar="FILE", help="File of results as JSON.")
    parser.add_argument(
        "--out", type=Path, default=Path("report.html"), help="File of the page to write."
    )


def run(options: argparse.Namespace) -> dict[str, object]:
    """Read results and write their page."""
    from training.report.page import page
    from training.report.results import read_file
    from training.run_folder import write_aside

    content = page(read_file(options.results)).encode()
    write_aside(options.out, content)
    return {"out": str(options.out), "bytes": len(content)}


COMMAND = cli.Command("report", __doc__, declare, run)
main = partial(cli.main, COMMAND)

if __name__ == "__main__":
    sys.exit(main())
