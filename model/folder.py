"""The files of a checkpoint folder, as far as they can be checked without torch."""

from pathlib import Path

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from model.backbones.sources import backbone_of, check_folder, folder_of, refuse_pickle
from model.config.method import METHOD_JSON, MethodConfig
from model.config.towers import PackagedConfig, TimmConfig
from model.errors import BackboneError, CheckpointError, first_fault

METHOD, WEIGHTS, CARD = "method.json", "weights.safetensors", "card.md"


def check_source(source: str, weights: Path | None) -> None:
    """Refuse what `load_recognizer` would refuse for its files' names, headers and lengths.

    This takes milliseconds; tensors are not read, and nothing is downloaded.

    Args:
        source: As to `load_recognizer`.
        weights: File with the backbone's weights, or None.

    Raises:
        CheckpointError: A checkpoint folder that is not there, or with a part that is torn.
        BackboneError: A backbone without weights, or a weights file that is not there or torn.
    """
    folder = folder_of(source)
    if folder is None:
        backbone_of(source, weights)
    else:
        check_folder(folder, (METHOD, WEIGHTS))
        try:
            method = read_method((folder / METHOD).read_bytes(), folder)
            _check_header(folder / WEIGHTS)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"{folder} cannot be read ({error}); restore it from its source."
            ) from error
        if weights is None:
            check_backbone(method, folder)
    if weights is not None:
        refuse_pickle(weights)
        try:
            _check_header(weights)
        except (OSError, SafetensorError) as error:
            raise BackboneError(
                f"{weights} cannot be read as safetensors or npz ({error}); name another file."
            ) from error


def holds_backbone(method: MethodConfig) -> bool:
    """Tell whether a checkpoint of a method holds the weights of its image tower itself."""
    backbone = method.backbone
    return isinstance(backbone, PackagedConfig) or (
        method.tune == "all" and isinstance(backbone, TimmConfig)
    )


def check_backbone(method: MethodConfig, folder: Path) -> None:
    """Refuse a checkpoint whose backbone came from a file, where none is given.

    Raises:
        CheckpointError: It did; the sentence names the file.
    """
    backbone = method.backbone
    if holds_backbone(method) or isinstance(backbone, PackagedConfig) or backbone.pretrained:
        return
    file = "a file" if backbone.file is None else repr(backbone.file)
    raise CheckpointError(
        f"{folder} stands on a {backbone.name} whose weights came from {file}; name that file "
        "with KSHOT_BACKBONE_WEIGHTS (--backbone-weights of a command)."
    )


def read_method(content: bytes, where: Path) -> MethodConfig:
    """Parse method.json; unknown keys are refused."""
    try:
        return METHOD_JSON.validate_json(content)
    except ValidationError as error:
        raise CheckpointError(
            f"{where / METHOD} does not describe a method: {first_fault(error)}; "
            "write it with this version of kshot."
        ) from error


def _check_header(file: Path) -> None:
    """Open a file; where it is safetensors, its header and its length are looked at."""
    with file.open("rb"):
        pass
    if file.suffix == ".safetensors":
        with safe_open(file, framework="numpy"):
            pass
