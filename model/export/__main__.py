"""`python -m model.export`: write a recognizer as ONNX files and check them against torch."""

import argparse
import importlib.metadata
import sys
from dataclasses import replace
from pathlib import Path

import torch

from model.checkpoint import load_recognizer
from model.errors import ExportError, KshotError
from model.export.graphs import OPSET, graphs_of, torch_parts, write_graph
from model.export.manifest import (
    MANIFEST_JSON,
    GraphFile,
    GraphName,
    Manifest,
    exported_beside,
    read_manifest,
    write_manifest,
)
from model.export.parity import answers, compare, episode_clips
from model.export.sessions import onnx_recognizer, onnxruntime
from model.recognizer import Recognizer


def export(recognizer: Recognizer, folder: Path) -> Manifest:
    """Write a folder that has passed the parity check.

    Args:
        recognizer: What is exported.
        folder: Made when it is not there.

    Raises:
        ExportError: It cannot be exported, or does not compute what torch computes.
    """
    if recognizer.video.whole_clips:
        raise ExportError(
            f"{recognizer.name!r} sees whole clips, and such networks are not exported; serve it "
            "with KSHOT_RUNTIME=torch."
        )
    folder.mkdir(parents=True, exist_ok=True)
    graphs: dict[GraphName, GraphFile] = {
        name: write_graph(module, example, folder / f"{name}.onnx")
        for name, (module, example) in graphs_of(recognizer).items()
    }
    manifest = Manifest(
        name=recognizer.name,
        fingerprint=recognizer.fingerprint,
        opset=OPSET,
        frames=recognizer.config.frames,
        size=recognizer.size,
        query_context=recognizer.config.query_context,
        torch_parts=torch_parts(recognizer),
        graphs=graphs,
        score_parity=0.0,
        versions=versions(),
    )
    found, scores = check(recognizer, folder, manifest)
    measured = {
        name: replace(graph, parity=found.get(name)) for name, graph in manifest.graphs.items()
    }
    manifest = replace(manifest, graphs=measured, score_parity=scores)
    write_manifest(folder, manifest)
    return manifest


def check(
    reference: Recognizer, folder: Path, manifest: Manifest
) -> tuple[dict[str, float], float]:
    """Compare a folder with torch on an episode."""
    clips = episode_clips(reference)
    exported = onnx_recognizer(reference, folder, manifest, threads=torch.get_num_threads())
    return compare(answers(reference, clips), answers(exported, clips))


def versions() -> dict[str, str]:
    """Tell what made the files."""
    packages = ("torch", "onnx", "onnxscript", "onnxruntime", "onnxruntime-gpu")
    found: dict[str, str] = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


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


def run(options: argparse.Namespace) -> Manifest:
    """Do what the command line asks for.

    Raises:
        KshotError: It cannot be done; the sentence says why.
    """
    onnxruntime()  # before any work, so that a missing package costs nothing
    out = options.out or exported_beside(options.checkpoint)
    if out is None:
        raise ExportError(f"{options.checkpoint!r} has no folder of its own; give --out DIR.")
    recognizer = load_recognizer(options.checkpoint, weights=options.backbone_weights)
    if options.check:
        manifest = read_manifest(out)
        _, scores = check(recognizer, out, manifest)
        return replace(manifest, score_parity=scores)
    return export(recognizer, out)


def report(manifest: Manifest) -> None:
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
    try:
        manifest = run(options)
    except KshotError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    report(manifest)
    if options.json:
        sys.stdout.write(MANIFEST_JSON.dump_json(manifest).decode() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
