"""Folders of ONNX files: written from a recognizer, and checked against torch."""

import importlib.metadata
from dataclasses import replace
from pathlib import Path

import torch

from model.checkpoint import load_recognizer
from model.errors import ExportError
from model.export.graphs import OPSET, graphs_of, torch_parts, write_graph
from model.export.manifest import (
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


def write_folder(checkpoint: str, weights: Path | None, out: Path | None) -> Manifest:
    """Export a checkpoint.

    Args:
        checkpoint: As KSHOT_CHECKPOINT.
        weights: File of the backbone's weights; None takes the hub's.
        out: Folder; None takes `onnx` in the checkpoint's.

    Raises:
        KshotError: It cannot be done; the sentence says why.
    """
    onnxruntime()  # before any work, so that a missing package costs nothing
    folder = _folder(checkpoint, out)
    return export(load_recognizer(checkpoint, weights=weights), folder)


def check_folder(checkpoint: str, weights: Path | None, out: Path | None) -> Manifest:
    """Compare a folder that is there with torch; arguments and errors as `write_folder`."""
    onnxruntime()
    folder = _folder(checkpoint, out)
    recognizer = load_recognizer(checkpoint, weights=weights)
    manifest = read_manifest(folder)
    _, scores = check(recognizer, folder, manifest)
    return replace(manifest, score_parity=scores)


def _folder(checkpoint: str, out: Path | None) -> Path:
    found = out or exported_beside(checkpoint)
    if found is None:
        raise ExportError(f"{checkpoint!r} has no folder of its own; give --out DIR.")
    return found


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
