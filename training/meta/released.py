"""Released Task-Adapter++ weights, as a checkpoint folder."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from model.assembly.recognizer import build_recognizer
from model.backbones.opening import fetch_weights, towers
from model.backbones.weights import listed, misfits
from model.checkpoint import save_checkpoint
from model.config.method import MethodConfig
from model.config.towers import OpenClipConfig
from model.convert_weights.pickles import tensors_of
from model.errors import CheckpointError
from model.recognizer import Recognizer

ADAPTERS = {
    "feature": {
        "t_adapter": "time",
        "s_adapter": "space",
        "task_adapter": "task",
        "MLP_adapter": "joint",
    },
    "text": {"sub3_adapter": "order"},
}
PREFIX = {"feature": "video", "text": "text"}
LAYERS = {"D_fc1": "down", "D_fc2": "up"}
RELEASED_NAME = re.compile(
    r"(?:module\.)?(feature|text)\.transformer\.resblocks\.(\d+)\.(\w+_adapter)\.(D_fc[12])\.(\w+)"
)
HALF_TOLERANCE = 2e-3  # the released towers went through float16


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportJob:
    """A released file and the method that it is of."""

    file: Path  # the released .tar
    out: Path  # checkpoint folder
    method: MethodConfig
    backbone_weights: Path | None


def released_tensors(state: Mapping[str, Tensor], recognizer: Recognizer) -> dict[str, Tensor]:
    """Rename the released tensors of the adapted blocks.

    Args:
        state: The released state dict.
        recognizer: The method they are for, with the number of adapted top blocks.

    Returns:
        The trained tensors by the names of `recognizer`.

    Raises:
        CheckpointError: A tensor belongs to an adapter that is not known.
    """
    names: dict[str, Tensor] = {}
    text_blocks = 0 if recognizer.text is None else len(recognizer.text.plain_blocks)
    below = {"feature": len(recognizer.video.plain_blocks), "text": text_blocks}
    for name, tensor in state.items():
        if name.removeprefix("module.") == "feature.temporal_embedding":
            names["video.temporal_embedding"] = tensor[0].unsqueeze(1)
        elif "_adapter" in name:
            found = RELEASED_NAME.fullmatch(name)
            if found is None or found[3] not in ADAPTERS[found[1]]:
                raise CheckpointError(f"No released adapter is called {name!r}; check the file.")
            tower, block, adapter, layer, kind = found.groups()
            index = int(block) - below[tower]
            if index >= 0:  # adapters of lower blocks exist in the file but never act
                ours = f"{PREFIX[tower]}.adapted.{index}.{ADAPTERS[tower][adapter]}"
                names[f"{ours}.{LAYERS[layer]}.{kind}"] = tensor
    return {name: tensor.float() for name, tensor in names.items()}


def load_released(state: Mapping[str, Tensor], recognizer: Recognizer) -> None:
    """Load released adapters into a method built on their backbone.

    Raises:
        CheckpointError: Adapters are missing or have another shape, or the backbone differs.
    """
    check_backbone(state, recognizer)
    tensors = released_tensors(state, recognizer)
    own = {name: p for name, p in recognizer.named_parameters() if p.requires_grad}
    if differing := misfits(own, tensors):
        raise CheckpointError(
            f"The released weights do not fit: {listed(differing)} missing, extra or of another "
            "shape; check the numbers of adapted blocks."
        )
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)


def check_backbone(state: Mapping[str, Tensor], recognizer: Recognizer) -> None:
    """Refuse released weights whose frozen tensors are not the backbone's.

    Raises:
        CheckpointError: A frozen tensor is absent or differs.
    """
    image = recognizer.video.tower.model.state_dict()
    text = {} if recognizer.text is None else recognizer.text.tower.model.state_dict()
    text.pop("logit_scale", None)
    frozen = {f"feature.{n}": t for n, t in image.items()}
    frozen |= {f"text.{n}": t for n, t in text.items()}
    released = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    for name, tensor in frozen.items():
        there = released.get(name)
        if there is None or there.shape != tensor.shape:
            raise CheckpointError(f"The released file has no {name} that fits; check the backbone.")
        if not torch.allclose(there.float(), tensor, atol=HALF_TOLERANCE, rtol=HALF_TOLERANCE):
            raise CheckpointError(
                f"{name} of the released file differs from the backbone's; "
                "name the backbone it was trained on."
            )


def import_released(job: ImportJob) -> dict[str, object]:
    """Write the checkpoint folder of a released file; return what the last line tells.

    Raises:
        CheckpointError: The file does not fit backbone and blocks.
        BackboneError: The file cannot be read, or the backbone not be loaded.
    """
    method, weights = job.method, job.backbone_weights
    assert isinstance(method.backbone, OpenClipConfig)
    opened = towers(method.backbone, weights or fetch_weights(method.backbone))
    recognizer = build_recognizer(method, *opened, name=job.out.name)
    load_released(tensors_of(job.file), recognizer)
    card = f"# Imported from {job.file.name}\n\nReleased Task-Adapter++ weights; see method.json.\n"
    save_checkpoint(recognizer, job.out, card)
    return {"out": str(job.out)}
