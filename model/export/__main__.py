"""`python -m model.export`: write a recognizer as ONNX files and check them against torch."""

import argparse
import importlib.metadata
import sys
from dataclasses import replace
from pathlib import Path

import torch

from model.checkpoint import load_recognizer
from model.errors import ExportError, KshotError
from model.export.clips import labelled_files, read_labelled
from model.export.graphs import OPSET, graphs_of, torch_parts, write_graph
from model.export.int8 import measure, quantise
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


def export(recognizer: Recognizer, reference: Recognizer, folder: Path) -> Manifest:
    """Write a folder that has passed the parity check.

    Args:
        recognizer: What is exported; its pixels are folded by that.
        reference: The same, loaded once more.
        folder: Made when it is not there.

    Raises:
        ExportError: It cannot be exported, or does not compute what torch computes.
    """
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
    found, scores = check(reference, folder, manifest)
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


def add_int8(
    reference: Recognizer, folder: Path, manifest: Manifest, source: Path, most: int
) -> Manifest:
    """Quantise the trunk with half of the clips of each label, and measure it on the other half."""
    files = labelled_files(source)
    clips = read_labelled(files, most=most, frames=manifest.frames, size=manifest.size)
    calibration = [clip for given in clips.values() for clip in given[: len(given) // 2]]
    held_out = {label: given[len(given) // 2 :] for label, given in clips.items()}
    trunk = manifest.graphs["trunk"]
    int8 = quantise(folder / trunk.file, folder / "trunk_int8.onnx", calibration, trunk)
    manifest = replace(manifest, graphs={**manifest.graphs, "trunk_int8": int8})
    threads = torch.get_num_threads()
    quantised = onnx_recognizer(reference, folder, manifest, precision="int8", threads=threads)
    accuracy = measure(reference, quantised, held_out, calibration_clips=len(calibration))
    manifest = replace(manifest, int8=accuracy)
    write_manifest(folder, manifest)
    return manifest


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
    given.add_argument("--int8", action="store_true", help="quantise the trunk too")
    given.add_argument(
        "--calibrate", type=Path, help="clips for --int8: folder of <label>/<clip>, or a CSV"
    )
    given.add_argument("--clips", type=int, default=128, help="most clips read for --int8")
    given.add_argument("--check", action="store_true", help="only check what --out holds")
    given.add_argument("--json", action="store_true", help="the result as JSON, last line")
    return given


def run(options: argparse.Namespace) -> Manifest:
    """Do what the command line asks for.

    Raises:
        KshotError: It cannot be done; the sentence says why.
    """
    if options.int8 and options.calibrate is None:
        raise ExportError("--int8 needs clips to find its scales; add --calibrate DIR.")
    onnxruntime()  # before any work, so that a missing package costs nothing
    out = options.out or exported_beside(options.checkpoint)
    if out is None:
        raise ExportError(f"{options.checkpoint!r} has no folder of its own; give --out DIR.")
    reference = load_recognizer(options.checkpoint, weights=options.backbone_weights)
    if options.check:
        manifest = read_manifest(out)
        _, scores = check(reference, out, manifest)
        return replace(manifest, score_parity=scores)
    recognizer = load_recognizer(options.checkpoint, weights=options.backbone_weights)
    manifest = export(recognizer, reference, out)
    if options.int8:
        manifest = add_int8(reference, out, manifest, options.calibrate, options.clips)
    return manifest


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
    if (int8 := manifest.int8) is not None:
        print(
            f"  int8, {int8.clips} clips held out of {int8.calibration_clips} for calibration: "
            f"accuracy {int8.accuracy_fp32:.3f} -> {int8.accuracy_int8:.3f}, same label "
            f"{int8.same_label:.3f}, scores differ by {int8.score_difference:.1e} at most"
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
