"""Download the weights of a model ahead, into the folder that the service takes them from.

python -m model.backbones.download clip
"""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from model.backbones.sources import ALIASES, DEFAULT_CACHE, backbone_of, folder_of
from model.errors import BackboneError, KshotError


def download(source: str, cache: Path) -> list[Path]:
    """Download what a bare backbone needs; return where it lies, the weights first.

    Raises:
        BackboneError: It is no bare backbone, or cannot be had.
    """
    if folder_of(source) is not None:
        raise BackboneError(
            f"{source!r} is nothing to download; give one of {', '.join(ALIASES)}, "
            "`open_clip:NAME@WEIGHTS` or `timm:NAME`."
        )
    # Not at the top: they take seconds, and `--help` needs none of them.
    from model.backbones.hub import Lines, fetch
    from model.backbones.opening import hub_files

    bar = tqdm if sys.stderr.isatty() else Lines
    return [fetch(file, cache, bar) for file in hub_files(backbone_of(source, None))]


def main(arguments: Sequence[str] | None = None) -> int:
    """Download what the command line names; the last line of stdout is JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m model.backbones.download", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("model", help=f"{', '.join(ALIASES)}, or as KSHOT_CHECKPOINT")
    parser.add_argument(
        "--cache", type=Path, default=DEFAULT_CACHE, help="as KSHOT_MODEL_CACHE: %(default)s"
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("kshot").setLevel(logging.INFO)
    try:
        files = download(options.model, options.cache)
    except KshotError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps({"model": options.model, "files": [str(file) for file in files]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
