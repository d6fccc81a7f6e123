"""Checkpoint folders: method.json, weights.safetensors, card.md; and bare backbones.

A folder holds the trained tensors alone; compact's holds its towers too. The file's metadata name
the method, the backbone and the tensors they belong to, so that nothing foreign is ever loaded.
No pickle is read.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from model.build import build_recognizer, towers
from model.calibration.fitted import read_calibration
from model.config import METHOD_JSON, CompactConfig, MethodConfig, OpenClipConfig, TimmConfig
from model.errors import BackboneError, CheckpointError
from model.files import write_file
from model.recognizer import Recognizer

COMPACT = Path(__file__).parent / "compact"  # the packaged default
FORMAT = "kshot-1"
METHOD, WEIGHTS, CARD = "method.json", "weights.safetensors", "card.md"


def load_recognizer(source: str, *, weights: Path | None = None) -> Recognizer:
    """Load what is to be served.

    Args:
        source: `compact`, a checkpoint folder, or a bare backbone, which runs untrained:
            `open_clip:NAME[@PRETRAINED]` or `timm:NAME`.
        weights: File with the backbone's weights (safetensors or npz) where no hub is reached.

    Raises:
        CheckpointError: a folder with missing, extra or foreign contents.
        BackboneError: a backbone that cannot be had.
    """
    folder = folder_of(source)
    if folder is not None:
        return load_folder(folder, name=folder.name, weights=weights)
    kind, _, name = source.partition(":")
    return _bare(_bare_config(kind, name, weights), source, weights)


def folder_of(source: str) -> Path | None:
    """Return where a checkpoint lies, given as to `load_recognizer`; None for a bare backbone."""
    if source == "compact":
        return COMPACT
    kind, separator, _ = source.partition(":")
    return None if separator and kind in ("open_clip", "timm") else Path(source)


def load_folder(folder: Path, *, name: str, weights: Path | None = None) -> Recognizer:
    """Load a checkpoint folder."""
    for part in (METHOD, WEIGHTS):
        if not (folder / part).is_file():
            raise CheckpointError(
                f"{folder} has no {part}; name a checkpoint folder, `compact`, "
                "`open_clip:NAME@PRETRAINED` or `timm:NAME`."
            )
    method = (folder / METHOD).read_bytes()
    config = read_method(method, folder)
    metadata, tensors = _read_weights(folder / WEIGHTS)
    _compare("method", metadata, sha256(method), folder)
    _compare("tensors", metadata, hash_tensors(tensors), folder)
    recognizer = _assemble(config, name, weights)
    identity = method + metadata["tensors"].encode()
    if not isinstance(config.backbone, CompactConfig):  # compact's towers are among the tensors
        backbone = hash_tensors(_backbone_tensors(recognizer))
        _compare("backbone", metadata, backbone, folder)
        identity += backbone.encode()
    _load_exactly(recognizer, tensors, folder)
    recognizer.fingerprint = sha256(identity)
    fitted = read_calibration(folder, recognizer.fingerprint, recognizer.video.tower.features)
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
    for name, content in (
        (WEIGHTS, save(tensors, metadata)),
        (CARD, card.encode()),
        (METHOD, method),
    ):
        write_file(folder / name, content)


def read_method(content: bytes, where: Path) -> MethodConfig:
    """Parse method.json; unknown keys are refused."""
    try:
        return METHOD_JSON.validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise CheckpointError(
            f"{where / METHOD} does not describe a method: {place}: {first['msg']}; "
            "write it with this version of kshot."
        ) from error


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
    backbone = config.backbone
    if weights is None and config.tune == "all" and isinstance(backbone, TimmConfig):
        image, text = towers(_without_download(backbone))  # the checkpoint holds its weights
    elif weights is None:
        image, text = towers(backbone)
    else:
        image, text = towers(_without_download(backbone))
        _load_backbone(image.model, None if text is None else text.model, weights)
    return build_recognizer(config, image, text, name=name)


def _bare(config: MethodConfig, source: str, weights: Path | None) -> Recognizer:
    recognizer = _assemble(config, source, weights)
    method = METHOD_JSON.dump_json(config)
    recognizer.fingerprint = sha256(method + hash_tensors(recognizer.state_dict()).encode())
    return recognizer


def _bare_config(kind: str, name: str, weights: Path | None) -> MethodConfig:
    if kind == "timm":
        return MethodConfig(backbone=TimmConfig(name=name, pretrained=weights is None))
    name, _, pretrained = name.partition("@")
    if not pretrained and weights is None:
        raise BackboneError(
            f"open_clip:{name} names no weights; write open_clip:{name}@openai, "
            "or give a weights file."
        )
    return MethodConfig(backbone=OpenClipConfig(name=name, pretrained=pretrained or None))


def _without_download(
    backbone: OpenClipConfig | TimmConfig | CompactConfig,
) -> OpenClipConfig | TimmConfig:
    match backbone:
        case OpenClipConfig(name=name):
            return OpenClipConfig(name=name)
        case TimmConfig(name=name):
            return TimmConfig(name=name, pretrained=False)
        case CompactConfig():
            raise BackboneError(
                "A compact checkpoint holds its own backbone; leave the weights file out."
            )


def _load_backbone(image: nn.Module, text: nn.Module | None, file: Path) -> None:
    tensors = read_tensors(file)
    parts = (
        [(image, "", "head.")] if text is None else [(image, "visual.", ""), (text, "", "visual.")]
    )
    for module, prefix, ignored in parts:
        own = {
            name.removeprefix(prefix): tensor
            for name, tensor in tensors.items()
            if name.startswith(prefix) and not (ignored and name.startswith(ignored))
        }
        want = module.state_dict()
        differing = sorted(
            name
            for name in want.keys() | own.keys()
            if name not in want or name not in own or want[name].shape != own[name].shape
        )
        if differing:
            raise BackboneError(
                f"{file} does not fit the backbone: {_listed(differing)} missing, extra or of "
                "another shape; give the weights of the backbone that is named."
            )
        module.load_state_dict(own)


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Read a safetensors or npz file; nothing is unpickled.

    Raises:
        BackboneError: no such file, or another format.
    """
    try:
        if file.suffix == ".npz":
            with np.load(file, allow_pickle=False) as arrays:
                return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        return dict(load_file(file))
    except (OSError, ValueError, SafetensorError) as error:
        raise BackboneError(
            f"{file} cannot be read as safetensors or npz ({error}); name another file."
        ) from error


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
    if isinstance(recognizer.config.backbone, CompactConfig):
        return names
    frozen = ["text.tower."] + ([] if recognizer.config.tune == "all" else ["video.tower."])
    return [name for name in names if not name.startswith(tuple(frozen))]


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
            f"{folder / WEIGHTS} lacks {_listed(missing)} and has {_listed(extra)} too much; "
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


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return shown or json.dumps([])
