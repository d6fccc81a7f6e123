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
# Trained tensors that are no adapter's, by their names here.
ONES = {
    "feature.temporal_embedding": "video.temporal_embedding",
    "ca.ln_1.weight": "text_head.norm.weight",
    "ca.ln_1.bias": "text_head.norm.bias",
}
LAYERS = {"D_fc1": "down", "D_fc2": "up"}
RELEASED_NAME = re.compile(
    r"(feature|text)\.transformer\.resblocks\.(\d+)\.(\w+_adapter)\.(D_fc[12])\.(\w+)"
)
HALF_TOLERANCE = 2e-3  # the released towers went through float16


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportJob:
    """A released file and the method that it is of."""

    file: Path  # the released .tar
    out: Path  # checkpoint folder
    method: MethodConfig
    backbone_weights: Path | None


def plain_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Name the released tensors without what training on several devices put into their names.

    The trainer wraps the visual tower alone (`feature.module.`); others wrap all of it.
    """
    whole = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return {name.replace("feature.module.", "feature.", 1): t for name, t in whole.items()}


def released_tensors(state: Mapping[str, Tensor], recognizer: Recognizer) -> dict[str, Tensor]:
    """Rename the released tensors that are trained.

    Args:
        state: The released state dict, with plain names.
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
        if name in ONES:
            names[ONES[name]] = tensor[0].unsqueeze(1) if tensor.ndim == 3 else tensor
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
        CheckpointError: Adapters are missing, of another shape or left over, or the backbone
            differs.
    """
    state = plain_names(state)
    known = check_backbone(state, recognizer)
    tensors = released_tensors(state, recognizer)
    own = {name: p for name, p in recognizer.named_parameters() if p.requires_grad}
    named = {name for name in state if name in ONES or "_adapter" in name}
    unplaced = {name for name in ONES if name in state and ONES[name] not in own}
    if left := sorted((state.keys() - known - named) | unplaced):
        raise CheckpointError(
            f"The method has no place for {listed(left)} of the released file; give --align-norm "
            "where they are the LayerNorm of the alignment (ca.ln_1), else check the file."
        )
    if differing := misfits(own, tensors):
        raise CheckpointError(
            f"The released weights do not fit: {listed(differing)} missing, extra or of another "
            "shape; check the numbers of adapted blocks, and leave --align-norm out where the file "
            "holds no ca.ln_1."
        )
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)


def check_backbone(released: Mapping[str, Tensor], recognizer: Recognizer) -> set[str]:
    """Refuse released weights whose frozen tensors are not the backbone's; return their names.

    Raises:
        CheckpointError: A frozen tensor is absent or differs.
    """
    image = recognizer.video.tower.model.state_dict()
    text = {} if recognizer.text is None else recognizer.text.tower.model.state_dict()
    text.pop("logit_scale", None)
    frozen = {f"feature.{n}": t for n, t in image.items()}
    frozen |= {f"text.{n}": t for n, t in text.items()}
    for name, tensor in frozen.items():
        there = released.get(name)
        if there is None or there.shape != tensor.shape:
            raise CheckpointError(f"The released file has no {name} that fits; check the backbone.")
        if not torch.allclose(there.float(), tensor, atol=HALF_TOLERANCE, rtol=HALF_TOLERANCE):
            raise CheckpointError(
                f"{name} of the released file differs from the backbone's; "
                "name the backbone it was trained on."
            )
    return {*frozen, "text.logit_scale"}


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
