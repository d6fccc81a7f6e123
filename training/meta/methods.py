"""A method to train: a preset of `model.methods` on a chosen backbone."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, assert_never

import torch

from model.build import build_recognizer
from model.checkpoint import load_recognizer
from model.config import (
    BiMhmMatcher,
    FramePairMatcher,
    MatcherConfig,
    MethodConfig,
    OtamMatcher,
    PrototypeMatcher,
    QueryContext,
    TrxMatcher,
    VisualConfig,
)
from model.methods import METHODS
from model.recognizer import Recognizer
from model.slots import Backbone
from training.errors import InputError

MatcherKind = Literal["prototype", "frame_pairs", "bi_mhm", "otam", "trx"]
DISTANCES = ("bi_mhm", "otam", "trx")  # no factor of a product with text


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodChoice:
    """Which preset, on which backbone, with what changed; None keeps the preset's."""

    preset: str
    backbone: str  # as KSHOT_CHECKPOINT: compact, timm:NAME, open_clip:NAME@WEIGHTS
    backbone_weights: Path | None = None
    blocks: int | None = None  # adapted visual blocks
    text_blocks: int | None = None  # adapted text blocks
    ratio: float | None = None  # hidden width of visual adapters / token width
    query_context: QueryContext | None = None
    frames: int | None = None  # T
    matcher: MatcherKind | None = None
    at_input: bool = False  # temporal embedding at the input, as released


def open_method(choice: MethodChoice, name: str) -> Recognizer:
    """Build the method with its adapters at their start.

    Raises:
        InputError: no such preset, or more adapted blocks than the tower has.
        BackboneError: a backbone that cannot be had.
    """
    if choice.preset not in METHODS:
        raise InputError(f"There is no method {choice.preset!r}; choose {', '.join(METHODS)}.")
    if METHODS[choice.preset].tune == "all":
        raise InputError(
            f"{choice.preset!r} tunes its backbone, and training works on cached tokens of a "
            "frozen one; choose another method."
        )
    bare = load_recognizer(choice.backbone, weights=choice.backbone_weights)
    text = None if bare.text is None else bare.text.tower
    method = changed(METHODS[choice.preset], choice)
    visual, order = method.visual, method.text if text is not None else None
    if visual is not None:
        _assert_fits(visual, bare.video.tower, choice.backbone)
    if order is not None and text is not None and order.blocks > len(text.blocks):
        raise InputError(
            f"{order.blocks} adapted text blocks do not fit the {len(text.blocks)} of "
            f"{choice.backbone!r}; give --text-blocks."
        )
    method = replace(method, backbone=bare.config.backbone, text=order)
    return build_recognizer(method, bare.video.tower, text, name=name)


def _assert_fits(visual: VisualConfig, tower: Backbone, backbone: str) -> None:
    if visual.blocks > len(tower.blocks):
        raise InputError(
            f"{visual.blocks} adapted blocks do not fit the {len(tower.blocks)} of {backbone!r}; "
            "give --blocks."
        )
    if not 1 <= visual.ratio * tower.width < math.inf:
        raise InputError(
            f"Adapters of {visual.ratio} x {tower.width} hidden values cannot be; give a --ratio "
            "such as 0.25."
        )


def start_from_adapters(recognizer: Recognizer, folder: Path, weights: Path | None) -> str:
    """Give a method the adapters of a checkpoint; return the checkpoint's fingerprint.

    Args:
        recognizer: Its adapters are replaced.
        folder: The checkpoint.
        weights: File of the backbone's weights, where they are not in the checkpoint.

    Raises:
        InputError: adapters of another kind or size, or another backbone.
        CheckpointError: no checkpoint.
    """
    earlier = load_recognizer(str(folder), weights=weights)
    own, known = recognizer.state_dict(), earlier.state_dict()
    sizes, known_sizes = ({n: t.shape for n, t in state.items()} for state in (own, known))
    if unfit := sorted(dict(sizes.items() ^ known_sizes.items())):
        raise InputError(
            f"--start {folder.name!r} does not fit in {unfit[0]}; give the same --backbone, "
            "--method, --blocks, --text-blocks, --ratio and --frames."
        )
    learned = {name for name, p in recognizer.named_parameters() if p.requires_grad}
    if any(not torch.equal(own[name], known[name]) for name in own.keys() - learned):
        raise InputError(
            f"--start {folder.name!r} stands on other backbone weights; give the same --backbone."
        )
    recognizer.load_state_dict(known)
    return earlier.fingerprint


def changed(method: MethodConfig, choice: MethodChoice) -> MethodConfig:
    """Return a preset with the choice's changes."""
    visual, text = method.visual, method.text
    if choice.blocks is not None and visual is not None:
        visual = replace(visual, blocks=choice.blocks)
    if choice.ratio is not None and visual is not None:
        visual = replace(visual, ratio=choice.ratio)
    if choice.text_blocks is not None and text is not None:
        text = replace(text, blocks=choice.text_blocks)
    matcher, fusion = method.matcher, method.fusion
    if choice.matcher is not None:
        matcher = matcher_config(choice.matcher)
        if fusion == "product" and choice.matcher in DISTANCES:
            fusion = "video"
    return replace(
        method,
        matcher=matcher,
        fusion=fusion,
        visual=visual,
        text=text,
        query_context=choice.query_context or method.query_context,
        frames=choice.frames or method.frames,
        temporal_embedding="input" if choice.at_input else method.temporal_embedding,
    )


def matcher_config(kind: MatcherKind) -> MatcherConfig:
    """Return a matcher with its own defaults."""
    match kind:
        case "prototype":
            return PrototypeMatcher()
        case "frame_pairs":
            return FramePairMatcher()
        case "bi_mhm":
            return BiMhmMatcher()
        case "otam":
            return OtamMatcher()
        case "trx":
            return TrxMatcher()
        case _:
            assert_never(kind)
