"""Turn a released Task-Adapter++ `.tar` into a checkpoint folder.

    python -m training.import_released model.tar --out runs/tapp --visual-blocks 6 --text-blocks 2

The released state dict holds adapters in every block and uses those of the top blocks; it does not
say how many, so the command asks. Its backbone must be the one that open_clip loads. The weights
were trained with `joint` attention among queries (model/papers/task_adapter.md, section 8), which
the service refuses; with another context they compute another function.
"""

import argparse
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from model.backbones.opening import fetch_weights, towers
from model.backbones.weights import listed, misfits
from model.build import build_recognizer
from model.checkpoint import save_checkpoint
from model.config import (
    Align,
    MethodConfig,
    OpenClipConfig,
    OrderConfig,
    QueryContext,
    TaskConfig,
)
from model.convert_weights.__main__ import tensors_of
from model.errors import CheckpointError
from model.recognizer import Recognizer
from training import cli

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
class Values:
    """What the command line asks for."""

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


def import_released(values: Values) -> dict[str, object]:
    """Write the checkpoint folder of a released file; return what the last line tells.

    Raises:
        CheckpointError: The file does not fit backbone and blocks.
        BackboneError: The file cannot be read, or the backbone not be loaded.
    """
    method, weights = values.method, values.backbone_weights
    assert isinstance(method.backbone, OpenClipConfig)
    opened = towers(method.backbone, weights or fetch_weights(method.backbone))
    recognizer = build_recognizer(method, *opened, name=values.out.name)
    load_released(tensors_of(values.file), recognizer)
    card = (
        f"# Imported from {values.file.name}\n\nReleased Task-Adapter++ weights; see method.json.\n"
    )
    save_checkpoint(recognizer, values.out, card)
    return {"out": str(values.out)}


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("file", type=Path, help="Released .tar file to read.")
    parser.add_argument(
        "--out", type=Path, required=True, help="Folder of the checkpoint to write."
    )
    parser.add_argument(
        "--visual-blocks",
        type=int,
        required=True,
        help="Adapted visual blocks of the file: 2 of scene sets, 6 of SSv2.",
    )
    parser.add_argument(
        "--text-blocks",
        type=int,
        required=True,
        help="Adapted text blocks of the file: 8 of scene sets, 2 of SSv2.",
    )
    parser.add_argument(
        "--backbone", default="ViT-B-16-quickgelu", help="Name of the architecture in open_clip."
    )
    parser.add_argument("--pretrained", default="openai", help="Name of its weights in open_clip.")
    parser.add_argument(
        "--backbone-weights", type=Path, help="File of these weights, where there is no hub."
    )
    parser.add_argument(
        "--query-context",
        choices=get_args(QueryContext),
        default="joint",
        help="What a query attends to beside itself.",
    )
    parser.add_argument(
        "--align",
        choices=get_args(Align),
        default="joint",
        help="Who is aligned with whom: as the released code was run.",
    )


def read_values(options: argparse.Namespace) -> Values:
    """Return the values of parsed options."""
    weights = options.backbone_weights
    method = MethodConfig(
        backbone=OpenClipConfig(
            name=options.backbone, pretrained=options.pretrained, file=weights and weights.name
        ),
        visual=TaskConfig(blocks=options.visual_blocks, zero_init=False),
        temporal_embedding="input",
        query_context=options.query_context,
        text=OrderConfig(blocks=options.text_blocks),
        align=options.align,
    )
    return Values(file=options.file, out=options.out, method=method, backbone_weights=weights)


def run(options: argparse.Namespace) -> dict[str, object]:
    """Run the command."""
    return import_released(read_values(options))


COMMAND = cli.Command("import_released", __doc__, declare, run)
main = partial(cli.main, COMMAND)

if __name__ == "__main__":
    sys.exit(main())
