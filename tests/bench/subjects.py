"""What is measured: a recognizer and its tasks.

Dimensions: S Q clips, T frames, H W pixels, C colours, N classes, A stages.
"""

from collections.abc import Sequence
from copy import deepcopy

import numpy as np
import torch
from torch import Tensor

from model.build import build_recognizer, towers
from model.checkpoint import load_recognizer
from model.config import OpenClipConfig
from model.methods import METHODS
from model.recognizer import EncodedSupport, MatchScores, Recognizer
from service.engine.runtimes.protocol import Runtime
from tests.bench.clips import SEED, actions

VIT_B = "vit-b"  # Task-Adapter on a ViT-B/16 with weights out of a seed


def recognizer_of(method: str) -> Recognizer:
    """Load a checkpoint; `vit-b` is made here, its adapters filled with noise as if trained."""
    if method != VIT_B:
        return load_recognizer(method)
    torch.manual_seed(SEED)
    config = METHODS["task_adapter"]
    backbone = OpenClipConfig(name="ViT-B-16-quickgelu")
    recognizer = build_recognizer(config, *towers(backbone), name="ViT-B/16, random weights")
    with torch.no_grad():
        for parameter in recognizer.parameters():
            if parameter.requires_grad:
                parameter.add_(0.02 * torch.randn_like(parameter))
    return recognizer


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
        return runtime.match(features_QTE, supports)
