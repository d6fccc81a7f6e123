"""Checkpoint folders: method.json, weights.safetensors, card.md; and bare backbones.

A folder holds the trained tensors alone; a packaged one holds its towers too. The file's metadata
name the method, the backbone and the tensors they belong to, so that nothing foreign is loaded.
No pickle is read.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from model.assembly.recognizer import build_recognizer
from model.backbones.opening import check_file_is_told, fetch_weights, towers
from model.backbones.sources import DEFAULT_CACHE, backbone_of, check_folder, folder_of
from model.backbones.weights import listed
from model.calibration.fitted import CALIBRATION, read_calibration
from model.config.method import METHOD_JSON, TUNES_IMAGE, MethodConfig
from model.config.towers import PackagedConfig
from model.errors import CheckpointError
from model.files import write_file
from model.folder import CARD, METHOD, WEIGHTS, check_backbone, holds_backbone, read_method
from model.methods import bare_method
from model.recognizer import Recognizer

FORMAT = "kshot-1"


def load_recognizer(
    source: str, *, weights: Path | None = None, cache: Path = DEFAULT_CACHE
) -> Recognizer:
    """Load what is to be served.

    Args:
        source: `compact`, `causal`, a checkpoint folder, or a bare backbone, which runs untrained:
            a short name of `model.backbones.sources`, `open_clip:NAME[@WEIGHTS]` or `timm:NAME`.
        weights: File with the backbone's weights (safetensors or npz) where no hub is reached.
        cache: Folder of downloaded weights.

    Raises:
        CheckpointError: a folder with missing, extra or foreign contents.
        BackboneError: a backbone that cannot be had.
    """
    folder = folder_of(source)
    if folder is not None:
        return load_folder(folder, name=folder.name, weights=weights, cache=cache)
    return _bare(bare_method(backbone_of(source, weights)), source, weights, cache)


def load_folder(
    folder: Path, *, name: str, weights: Path | None = None, cache: Path = DEFAULT_CACHE
) -> Recognizer:
    """Load a checkpoint folder; arguments and errors as of `load_recognizer`."""
    check_folder(folder, (METHOD, WEIGHTS))
    method = (folder / METHOD).read_bytes()
    config = read_method(method, folder)
    metadata, tensors = _read_weights(folder / WEIGHTS)
    _compare("method", metadata, sha256(method), folder)
    _compare("tensors", metadata, hash_tensors(tensors), folder)
    recognizer = _assemble(config, name, weights or _stored_backbone(config, folder, cache))
    identity = method + metadata["tensors"].encode()
    if not isinstance(config.backbone, PackagedConfig):  # their towers are among the tensors
        backbone = hash_tensors(_backbone_tensors(recognizer))
        _compare("backbone", metadata, backbone, folder)
        identity += backbone.encode()
    _load_exactly(recognizer, tensors, folder)
    recognizer.fingerprint = sha256(identity)
    fitted = read_calibration(folder, recognizer.fingerprint, recognizer.video.features)
    recognizer.calibrate(fitted or recognizer.calibration)
    return recognizer.eval()


def save_checkpoint(recognizer: Recognizer, folder: Path, card: str, *, half: bool = False) -> None:
    """Write a checkpoint folder; each file is whole or not there.

    Args:
        recognizer: The method with its weights.
        folder: Made when it is not there; files of the same names are replaced.
        card: What the weights know: data, classes, protocol, accuracy, licence.
        half: Store 16 bits, as the packaged checkpoint does: bfloat16 for what sees clips, so that
            bfloat16 and fp32 serve the same weights, and float16 for text.
    """
    method = METHOD_JSON.dump_json(recognizer.config, indent=2) + b"\n"
    kept = {name: recognizer.state_dict()[name] for name in _stored_names(recognizer)}
    tensors = {
        name: tensor.detach().cpu().to(_stored_dtype(name, tensor, half=half)).contiguous()
        for name, tensor in kept.items()
    }
    metadata = {
        "format": FORMAT,
        "method": sha256(method),
        "tensors": hash_tensors(tensors),
        "backbone": hash_tensors(_backbone_tensors(recognizer)),
    }
    (folder / CALIBRATION).unlink(missing_ok=True)  # of the weights that were there
    for name, content in (
        (WEIGHTS, save(tensors, metadata)),
        (CARD, card.encode()),
        (METHOD, method),
    ):
        write_file(folder / name, content)


def sha256(content: bytes) -> str:
    """Return the hexadecimal digest."""
    return hashlib.sha256(content).hexdigest()


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Hash names, shapes and values, whatever their order or device."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _assemble(config: MethodConfig, name: str, weights: Path | None) -> Recognizer:
    image, text = towers(config.backbone, weights, frames=config.frames)
    return build_recognizer(config, image, text, name=name)


def _bare(config: MethodConfig, source: str, weights: Path | None, cache: Path) -> Recognizer:
    backbone = config.backbone
    assert not isinstance(backbone, PackagedConfig)
    check_file_is_told(backbone)
    recognizer = _assemble(config, source, weights or fetch_weights(backbone, cache))
    unnamed = replace(config, backbone=replace(backbone, file=None))  # a file may be renamed
    method = METHOD_JSON.dump_json(unnamed)
    recognizer.fingerprint = sha256(method + hash_tensors(recognizer.state_dict()).encode())
    return recognizer


def _stored_backbone(config: MethodConfig, folder: Path, cache: Path) -> Path | None:
    """Return the weights file of a checkpoint's backbone; None where the checkpoint holds them.

    Raises:
        CheckpointError: It was trained on a file that is not given.
    """
    check_backbone(config, folder)
    backbone = config.backbone
    if holds_backbone(config) or isinstance(backbone, PackagedConfig):
        return None
    return fetch_weights(backbone, cache)


def _read_weights(file: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{file} is no safetensors file ({error}); restore it from its source."
        ) from error
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"{file} has format {metadata.get('format')!r}, not {FORMAT!r}; "
            "write it with this version of kshot."
        )
    return metadata, tensors


def _compare(what: str, metadata: Mapping[str, str], found: str, folder: Path) -> None:
    if metadata.get(what) != found:
        raise CheckpointError(
            f"{folder}: the weights were saved with {what} {metadata.get(what, '?')[:12]}, "
            f"but here it is {found[:12]}; use the {what} they were saved with."
        )


def _stored_names(recognizer: Recognizer) -> list[str]:
    """Name the tensors of a checkpoint: what is not the frozen backbone's own."""
    names = list(recognizer.state_dict())
    if isinstance(recognizer.config.backbone, PackagedConfig):
        return names
    tune, tuned = recognizer.config.tune, set(recognizer.tuned_names)
    frozen = [] if tune == "towers" else ["text.tower."]
    frozen += [] if tune in TUNES_IMAGE else ["video.tower."]
    return [name for name in names if name in tuned or not name.startswith(tuple(frozen))]


def _stored_dtype(name: str, tensor: Tensor, *, half: bool) -> torch.dtype:
    if not tensor.is_floating_point():
        return tensor.dtype
    if not half:
        return torch.float32
    return torch.float16 if name.startswith("text.") else torch.bfloat16


def _backbone_tensors(recognizer: Recognizer) -> dict[str, Tensor]:
    stored = set(_stored_names(recognizer))
    return {n: t for n, t in recognizer.state_dict().items() if n not in stored}


def _load_exactly(recognizer: Recognizer, tensors: Mapping[str, Tensor], folder: Path) -> None:
    want = set(_stored_names(recognizer))
    missing, extra = sorted(want - set(tensors)), sorted(set(tensors) - want)
    if missing or extra:
        raise CheckpointError(
            f"{folder / WEIGHTS} lacks {listed(missing)} and has {listed(extra)} too much; "
            "use the weights that belong to method.json."
        )
    own = recognizer.state_dict()
    for name, tensor in tensors.items():
        if own[name].shape != tensor.shape:
            raise CheckpointError(
                f"{folder / WEIGHTS}: {name} has shape {tuple(tensor.shape)}, not "
                f"{tuple(own[name].shape)}; use the weights that belong to method.json."
            )
        own[name].copy_(tensor)
