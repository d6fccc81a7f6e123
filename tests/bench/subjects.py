"""What is measured: a recognizer and its tasks.

Dimensions: S Q clips, T frames, H W pixels, C colours, N classes, A stages.
"""

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from model.assembly.recognizer import build_recognizer
from model.backbones.opening import towers
from model.checkpoint import load_recognizer, save_checkpoint
from model.config.towers import OpenClipConfig
from model.episode import EncodedSupport, MatchScores, plain
from model.methods import METHODS
from model.recognizer import Recognizer
from service.engine.runtimes.protocol import Runtime
from tests.bench.clips import SEED, actions

VIT_B_NAME = "ViT-B-16-quickgelu"
VIT_B_FROZEN = "vit-b-frozen"  # its backbone alone, as README's second row
VIT_B = "vit-b"  # Task-Adapter on a ViT-B/16 with weights out of a seed


def recognizer_of(method: str) -> Recognizer:
    """Load a checkpoint; `vit-b` is made here, its adapters filled with noise as if trained."""
    if method != VIT_B:
        return load_recognizer(method)
    torch.manual_seed(SEED)
    config = METHODS["task_adapter"]
    backbone = OpenClipConfig(name=VIT_B_NAME)
    recognizer = build_recognizer(config, *towers(backbone), name="ViT-B/16, random weights")
    with torch.no_grad():
        for parameter in recognizer.parameters():
            if parameter.requires_grad:
                parameter.add_(0.02 * torch.randn_like(parameter))
    return recognizer


def settings_of(method: str, folder: Path) -> dict[str, str]:
    """Give the settings that serve a method; `vit-b` is written into the folder first."""
    if method not in (VIT_B, VIT_B_FROZEN):
        return {"KSHOT_CHECKPOINT": method}
    recognizer, weights = recognizer_of(VIT_B), folder / "backbone.safetensors"
    save_checkpoint(recognizer, folder / VIT_B, "Weights out of a seed, to be timed alone.")
    assert recognizer.text is not None
    tensors = recognizer.text.tower.model.state_dict()
    image = recognizer.video.tower.model.state_dict()
    tensors |= {f"visual.{name}": tensor for name, tensor in image.items()}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, weights)
    served = f"open_clip:{VIT_B_NAME}" if method == VIT_B_FROZEN else str(folder / VIT_B)
    return {"KSHOT_CHECKPOINT": served, "KSHOT_BACKBONE_WEIGHTS": str(weights)}


def text_of(recognizer: Recognizer) -> Tensor | None:
    """Encode the labels' stages; returns text_NAE, or None where the method has no text."""
    if not recognizer.has_text:
        return None
    labels = actions()
    with torch.inference_mode():
        return recognizer.encode_text(
            [action.label for action in labels], [action.stages for action in labels]
        )


def copies(support: EncodedSupport, count: int) -> list[EncodedSupport]:
    """Make tasks out of one, each with memory of its own: what they cost is what others would."""
    return [deepcopy(support) for _ in range(count)]


def forward(
    runtime: Runtime, frames_QTHWC: np.ndarray | Tensor, supports: Sequence[EncodedSupport]
) -> list[MatchScores]:
    """Run the bare network, as the device thread does."""
    with torch.inference_mode():
        tokens_QTLD = runtime.trunk(frames_QTHWC)
        features_QTE = runtime.encode_query(tokens_QTLD, supports)
        return plain(runtime.score(features_QTE, supports))
