"""The whole way through HTTP: start the service, register a task, classify clips it has not seen.

python -m deploy.demo                    five synthetic actions, made here
python -m deploy.demo --order            five that differ in the order of their motions alone
python -m deploy.demo --clips DIR        a folder of <label>/<clip>, see deploy/demo_folder.py

The last line of stdout is one JSON document. Nothing is left behind, whatever ends the run.
"""

import argparse
import json
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

from deploy.local_service import LocalServiceError
from kshot_client import KshotError as ClientError
from model.errors import KshotError
from training.errors import InputError

REFUSALS = (ClientError, InputError, KshotError, LocalServiceError)


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    made = argparse.ArgumentParser(
        prog="python -m deploy.demo",
        description="Start the service, register a task through HTTP, classify held-out clips.",
    )
    made.add_argument("--seed", type=int, default=0, help="of every choice (default 0)")
    made.add_argument("--ways", type=int, default=5, help="labels of a task (default 5)")
    made.add_argument(
        "--shots", type=int, nargs="+", help="support clips a label (default 5; folder: 1 and 5)"
    )
    made.add_argument(
        "--queries", type=int, help="held-out clips a label (default 10; folder: 5 a task)"
    )
    made.add_argument(
        "--keep", type=Path, metavar="DIR", help="leave the synthetic clips there, to try curl with"
    )
    made.add_argument(
        "--order",
        action="store_true",
        help="labels of one mover that differ in the order of three motions alone (2 to 6 ways)",
    )
    _add_folder_arguments(made.add_argument_group("a folder of clips"))
    return made


def _add_folder_arguments(folder: argparse._ArgumentGroup) -> None:
    folder.add_argument("--clips", type=Path, metavar="DIR", help="folder of <label>/<clip>")
    folder.add_argument("--labels", nargs="+", default=[], help="only these labels")
    folder.add_argument(
        "--split", default="test", help="labels of this split of index.csv (default test)"
    )
    folder.add_argument(
        "--tasks", type=int, default=4, help="tasks through HTTP for each shots (default 4)"
    )
    folder.add_argument(
        "--episodes",
        type=int,
        default=2000,
        help="episodes on features extracted once, without HTTP; 0 leaves them out (default 2000)",
    )
    folder.add_argument(
        "--teacher", type=Path, metavar="FILE", help="weights of a ViT-Ti/16 to stand beside"
    )


def main() -> int:
    """Run one demo; give the exit status."""
    options = parser().parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` may have ignored it
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, _leave)
    try:
        result = _run(options)
    except (*REFUSALS, ValueError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: stopped; the service and its folder are gone.", file=sys.stderr)
        return 130
    print(json.dumps(result))
    return 0


def _run(options: argparse.Namespace) -> dict[str, Any]:
    # Not at the top: `--help` needs none of it.
    if options.clips:
        from deploy import demo_folder

        return demo_folder.run(options)
    from deploy import demo_synthetic

    return demo_synthetic.run(options)


def _leave(number: int, _: object) -> NoReturn:
    """End as on Ctrl-C, so that every block is left in order."""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
