"""All benchmarks, one after the other; `make bench` runs this. The last line of stdout is JSON.

    python -m tests.bench
    python -m tests.bench --full
    python -m tests.bench --only http -- --parts slow

Without `--full` settings are short: enough to see that everything runs, and a first impression of
the ratios. Each benchmark is a process; what stands behind `--` is handed on to it.
"""

import argparse
import json
import subprocess
import sys
from typing import Any

from deploy.local_service import ROOT
from tests.bench.bars import machine, table

SHORT = {
    "engine": "--rounds 3 --clips 32 --in-flight 32 --alone 40 --batches 10",
    "http": "--rounds 3 --requests 64 --open-s 10 --seconds 15 --leavers 120",
    "service": "--repeats 10",
    "runtime": "--rounds 5",
}
FULL = {"engine": "", "http": "", "service": "--repeats 30", "runtime": ""}


def run(name: str, arguments: list[str]) -> dict[str, Any]:
    """Run one benchmark, show what it prints, and return its last line."""
    command = [sys.executable, "-m", f"tests.bench.bench_{name}", *arguments]
    print(f"\n== {' '.join(['python', *command[1:]])}", flush=True)
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        last = ""
        for line in process.stdout:
            if last:
                print(last, flush=True)
            last = line.rstrip("\n")
    if process.returncode:
        print(last)
        raise SystemExit(f"bench_{name} failed with exit status {process.returncode}.")
    return dict(json.loads(last))


def main() -> None:
    """Run, show the table of all, tell it as JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--only", nargs="+", choices=SHORT, default=list(SHORT))
    parser.add_argument("--full", action="store_true", help="settings for figures to be kept")
    parser.add_argument("rest", nargs="*", help="handed on, behind --")
    options = parser.parse_args()
    before, documents = machine(), {}
    for name in options.only:
        given = (FULL if options.full else SHORT)[name].split()
        documents[name] = run(name, given + options.rest)
    bars = [
        bar | {"bench": name} for name, told in documents.items() for bar in told.get("bars", ())
    ]
    print(f"\n{table(bars)}")
    print(json.dumps({"bench": "all", "bars": bars, "parts": documents, "machine": before}))


if __name__ == "__main__":
    main()
