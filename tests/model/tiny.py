"""Tiny methods for tests: real modules, small numbers, trained-looking adapters."""

from dataclasses import replace

import torch
from torch import Tensor

from model.assembly.recognizer import build_recognizer
from model.backbones.opening import towers
from model.backbones.words import split_words
from model.config.blocks import D2stConfig, OrderConfig
from model.config.method import MethodConfig
from model.config.prototypes import GraphPrototypes, TextGuidedPrototypes, TextTokenPrototypes
from model.config.temporal import DenseConfig
from model.config.towers import CompactConfig, CompactTextConfig
from model.episode import ClassSet
from model.methods import METHODS
from model.recognizer import Recognizer
from model.text import prompts, template_stages

LABELS = ("jump", "wave", "pour", "turn left", "clap", "sit", "stand")
WORDS = tuple(
    sorted(
        {
            w
            for label in LABELS
            for p in prompts(label, template_stages(label))
            for w in split_words(p)
        }
    )
)
TOWERS = CompactConfig(
    size=16,
    patch=8,
    width=32,
    depth=3,
    heads=2,
    text=CompactTextConfig(words=WORDS, width=16, layers=3, heads=2),
)


def tiny_method(preset: str = "task_adapter_pp", **changes: object) -> MethodConfig:
    """Return a preset on tiny towers, with at most 2 adapted blocks."""
    method = METHODS[preset]
    visual = replace(method.visual, blocks=2) if method.visual else None
    text = OrderConfig(blocks=2) if method.text else None
    finer = isinstance(visual, D2stConfig)  # which needs a grid of 7 x 7
    tiny = {
        "backbone": replace(TOWERS, patch=2) if finer else TOWERS,
        "visual": visual,
        "text": text,
    }
    if isinstance(method.prototypes, GraphPrototypes):
        tiny["prototypes"] = replace(method.prototypes, layers=2, hidden=8)
    if isinstance(method.temporal, DenseConfig):
        tiny["temporal"] = replace(method.temporal, heads=4)
    if isinstance(method.prototypes, TextTokenPrototypes | TextGuidedPrototypes):
        tiny["prototypes"] = replace(method.prototypes, heads=4, hidden=48)
    return replace(method, **{**tiny, **changes})


def tiny_recognizer(
    preset: str = "task_adapter_pp", *, trained: bool = True, seed: int = 0, **changes: object
) -> Recognizer:
    """Build a tiny method; `trained` fills its adapters with noise, as training would."""
    torch.manual_seed(seed)
    method = tiny_method(preset, **changes)
    recognizer = build_recognizer(method, *towers(method.backbone))
    encoders = (recognizer.video, recognizer.text)
    towers_own = {id(p) for one in encoders if one is not None for p in one.tower.parameters()}
    with torch.no_grad():
        for parameter in recognizer.parameters():
            learns = id(parameter) not in towers_own
            if not learns and parameter.ndim > 1:
                parameter.mul_(6)  # sharp attention, features that differ: what bugs would move
            elif trained and learns:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return recognizer


def clips(count: int, *, seed: int = 0, frames: int = 8, size: int = 16) -> Tensor:
    """Return clips of random coarse patterns [B, T, H, W, C], uint8."""
    noise = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, frames, 3, 3, 3, generator=noise) + torch.rand(
        count, 1, 3, 3, 3, generator=noise
    )
    fine = torch.nn.functional.interpolate(coarse.flatten(0, 1), size=(size, size))
    return (fine * 127).to(torch.uint8).unflatten(0, (count, frames)).permute(0, 1, 3, 4, 2)


def class_set(prototype_NTE: Tensor) -> ClassSet:
    """Return classes of one shot each, with that shot as their prototype."""
    return ClassSet(prototype_NTE, (1,) * len(prototype_NTE), tuple(prototype_NTE[:, None]))


def tiny_text(recognizer: Recognizer, labels: tuple[str, ...]) -> Tensor | None:
    """Encode the template text of labels, where the method uses text."""
    if not recognizer.has_text:
        return None
    count = recognizer.config.stages
    return recognizer.encode_text(labels, [template_stages(label, count) for label in labels])
