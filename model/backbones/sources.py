"""What can be served by a name: short names, checkpoint folders, backbones of the libraries."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from model.config.towers import (
    LibraryConfig,
    OpenClipConfig,
    TimmConfig,
    VideoConfig,
    VideoMaeConfig,
    VJepa2Config,
)
from model.errors import BackboneError, CheckpointError

COMPACT = Path(__file__).parents[1] / "compact"
PACKAGED = {"compact": COMPACT, "causal": COMPACT.parent / "causal"}  # checkpoint folders
DEFAULT_CACHE = Path("~/.cache/kshot/models")  # of what is downloaded

# The one table of short names: what each stands for. docs/models.md says what each costs.
ALIASES: dict[str, str] = {
    "clip": "open_clip:ViT-B-16-quickgelu@openai",
    "clip-large": "open_clip:ViT-L-14-quickgelu@openai",
    "siglip2": "open_clip:ViT-B-16-SigLIP2@webli",
    "dinov3": "timm:vit_base_patch16_dinov3.lvd1689m",
    "vjepa2": "transformers:facebook/vjepa2-vitl-fpc64-256",
    "videomae": "transformers:MCG-NJU/videomae-base-finetuned-kinetics",
}
LIBRARIES = ("open_clip", "timm", "transformers")
VIDEO: tuple[VideoConfig, ...] = (VJepa2Config(), VideoMaeConfig())  # whose shapes are known
PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl")
NAMES = ", ".join(f"`{name}`" for name in (*PACKAGED, *ALIASES))


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a repository of the hub.

    Args:
        repository: Where the hub has it.
        name: Of the file.
        beside: Repository whose files it lies beside; None is its own.
    """

    repository: str
    name: str
    beside: str | None = None

    def path(self, cache: Path) -> Path:
        """Return where it lies when it is there."""
        return cache.expanduser() / (self.beside or self.repository) / self.name


class Source(NamedTuple):
    """What a name stands for: a checkpoint folder, or a backbone of a library."""

    folder: Path | None
    library: str = ""
    name: str = ""


def source_of(source: str) -> Source:
    """Say what a name stands for; a folder of a short name is given as `./NAME`."""
    if source in PACKAGED:
        return Source(PACKAGED[source])
    library, separator, name = ALIASES.get(source, source).partition(":")
    if separator and library in LIBRARIES:
        return Source(None, library, name)
    return Source(Path(source))


def folder_of(source: str) -> Path | None:
    """Return where a checkpoint lies; None for a bare backbone."""
    return source_of(source).folder


def check_folder(folder: Path, parts: tuple[str, ...]) -> None:
    """Refuse what is no checkpoint folder.

    Raises:
        CheckpointError: There is no such folder, or one of its parts is missing.
    """
    if not folder.is_dir():
        raise CheckpointError(
            f"There is no model {str(folder)!r}; give one of {NAMES}, the path of a checkpoint "
            "folder, `open_clip:NAME@WEIGHTS` or `timm:NAME`."
        )
    for part in parts:
        if not (folder / part).is_file():
            raise CheckpointError(
                f"{folder} has no {part}; name a checkpoint folder that `training.fit` wrote, or "
                f"one of {NAMES}."
            )


def backbone_of(source: str, weights: Path | None) -> LibraryConfig:
    """Return the config of a bare backbone.

    Args:
        source: As `source_of` takes it; no folder.
        weights: File with its weights, or None where they come from the hub.

    Raises:
        BackboneError: It names no weights and no file is given.
    """
    _, library, name = source_of(source)
    file = None if weights is None else weights.name
    if library == "timm":
        return TimmConfig(name=name, pretrained=weights is None, file=file)
    if library == "transformers":
        for known in VIDEO:
            if known.name == name:
                return replace(known, pretrained=weights is None, file=file)
        raise BackboneError(
            f"The shape of transformers:{name} is not known here; choose of "
            f"{', '.join(known.name for known in VIDEO)}."
        )
    name, _, tag = name.partition("@")
    if not tag and weights is None:
        raise BackboneError(
            f"open_clip:{name} names no weights; write open_clip:{name}@openai, "
            "or give a weights file."
        )
    return OpenClipConfig(name=name, pretrained=tag or None, file=file)


def refuse_pickle(file: Path) -> None:
    """Refuse a weights file that could run foreign code when it is read.

    Raises:
        BackboneError: It is one, by its name; the sentence has the command that converts it.
    """
    if file.suffix in PICKLES and file.exists():
        made = file.with_suffix(".safetensors")
        raise BackboneError(
            f"{file} is a pickle, which could run foreign code, so it is not read; write it anew "
            f"with `python -m model.convert_weights {file} {made}`, and name {made.name}."
        )
