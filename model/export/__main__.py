"""`python -m model.export`: write a recognizer as ONNX files and check them against torch."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from model.errors import KshotError

if TYPE_CHECKING:
    from model.export.manifest import Manifest


def parser() -> argparse.ArgumentParser:
    """Describe the command."""
    given = argparse.ArgumentParser(
        prog="python -m model.export",
        description="Write a recognizer as ONNX files and check them against torch.",
    )
    given.add_argument("--checkpoint", default="compact", help="as KSHOT_CHECKPOINT")
    given.add_argument("--backbone-weights", type=Path, help="as KSHOT_BACKBONE_WEIGHTS")
    given.add_argument("--out", type=Path, help="folder; default: `onnx` in the checkpoint's")
    given.add_argument("--check", action="store_true", help="only check what --out holds")
    given.add_argument("--json", action="store_true", help="the result as JSON, last line")
    return given


def report(manifest: "Manifest") -> None:
    """Print what was written and how close it is."""
    print(f"{manifest.name}, weights {manifest.fingerprint[:12]}, opset {manifest.opset}")
    for name, graph in manifest.graphs.items():
        close = "" if graph.parity is None else f"  differs from torch by {graph.parity:.1e}"
        print(f"  {name:<11} {graph.input} -> {graph.output}{close}")
    print(
        f"  scores differ by {manifest.score_parity:.1e}; "
        f"in torch: {', '.join(manifest.torch_parts)}"
    )


def main() -> int:
    """Run the command."""
    options = parser().parse_args()
    # Not at the top: `--help` needs none of it.
    from model.export.manifest import MANIFEST_JSON
    from model.export.writing import check_folder, write_folder

    act = check_folder if options.check else write_folder
    try:
        manifest = act(options.checkpoint, options.backbone_weights, options.out)
    except KshotError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    report(manifest)
    if options.json:
        sys.stdout.write(MANIFEST_JSON.dump_json(manifest).decode() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
