"""What an exported folder says about itself: manifest.json, written last and read first."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from model.backbones.sources import folder_of
from model.config.method import QueryContext
from model.config.root import Config
from model.errors import ExportError, first_fault
from model.files import write_file

MANIFEST = "manifest.json"
FORMAT = "kshot-onnx-1"

GraphName = Literal["trunk", "adapted", "text"]
Shape = tuple[int | str, ...]  # a name is a size that may vary


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphFile(Config):
    """One ONNX file."""

    file: Annotated[str, Field(pattern=r"^[a-z0-9_.]+$")]  # never a path out of the folder
    sha256: str
    input: Shape
    output: Shape
    parity: float | None = None  # largest difference from torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest(Config):
    """Everything a runtime must know before it opens a file."""

    format: Literal["kshot-onnx-1"] = "kshot-onnx-1"
    name: str
    fingerprint: str  # of method and weights
    opset: int
    frames: int
    size: int
    query_context: QueryContext
    torch_parts: tuple[str, ...]  # what is not exported, and runs in torch
    graphs: dict[GraphName, GraphFile]
    score_parity: float  # largest difference of scores from torch
    versions: dict[str, str] = field(default_factory=dict)


MANIFEST_JSON: TypeAdapter[Manifest] = TypeAdapter(Manifest)


def sha256_of(file: Path) -> str:
    """Hash a file of any size."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def exported_beside(checkpoint: str) -> Path | None:
    """Return where a checkpoint's own ONNX files are looked for; None for a bare backbone."""
    folder = folder_of(checkpoint)
    return None if folder is None else folder / "onnx"


def read_manifest(folder: Path) -> Manifest:
    """Read what a folder holds.

    Raises:
        ExportError: No folder, no manifest, or another format.
    """
    try:
        return MANIFEST_JSON.validate_json((folder / MANIFEST).read_bytes())
    except OSError as error:
        raise ExportError(
            f"{folder} has no {MANIFEST} ({error.strerror}); "
            f"write it with `python -m model.export --out {folder}`."
        ) from error
    except ValidationError as error:
        raise ExportError(
            f"{folder / MANIFEST} is no {FORMAT} manifest: {first_fault(error)}; export again."
        ) from error


def checked_file(folder: Path, manifest: Manifest, name: GraphName) -> Path:
    """Return the path of a graph whose bytes are those that were written.

    Raises:
        ExportError: It is not there, torn or changed.
    """
    if name not in manifest.graphs:
        raise ExportError(f"{folder} holds no {name}; export again.")
    file = folder / manifest.graphs[name].file
    if not file.is_file():
        raise ExportError(f"{file} is not there; export again.")
    if sha256_of(file) != manifest.graphs[name].sha256:
        raise ExportError(
            f"{file} is torn or changed: its bytes are not {MANIFEST}'s; export again."
        )
    return file


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest, last of all: a folder without one is unfinished."""
    write_file(folder / MANIFEST, MANIFEST_JSON.dump_json(manifest, indent=2) + b"\n")
