"""Write a pickle of weights anew as safetensors; nothing of the pickle is run.

python -m model.convert_weights FILE.pt FILE.safetensors
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from model.errors import KshotError


def main(arguments: Sequence[str] | None = None) -> int:
    """Convert what the command line names; the last line of stdout is JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m model.convert_weights", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("file", type=Path, help="the pickle: .pt, .pth, .bin or .ckpt")
    parser.add_argument("out", type=Path, help="the safetensors file to write")
    options = parser.parse_args(arguments)
    from model.convert_weights.pickles import convert  # takes seconds, and --help needs none of it

    try:
        count = convert(options.file, options.out)
    except KshotError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps({"tensors": count, "out": str(options.out)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
