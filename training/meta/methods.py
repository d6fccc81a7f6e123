"""A method to train: a preset of `model.methods` on a chosen backbone."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from model.assembly.matching import build_matcher
from model.assembly.recognizer import build_recognizer
from model.checkpoint import load_recognizer
from model.config.blocks import TaskConfig, VisualConfig
from model.config.matching import MatcherConfig
from model.config.method import MethodConfig
from model.config.towers import VideoNetworkConfig
from model.methods import METHODS
from model.recognizer import Recognizer
from model.slots import Backbone
from training.errors import InputError
from training.meta.choice import MATCHERS, MethodChanges, MethodChoice

# One sentence a class against the mean frame (Task-Adapter, 2024).
BY_LABEL: dict[str, Any] = {
    "text_head": "label",
    "stages": 1,
    "prompt": "a photo of action about {spelled}",
}
FEATURES = 8  # of a matcher that is built to be asked what it declares


def open_method(choice: MethodChoice, name: str) -> Recognizer:
    """Build the method with its adapters at their start.

    Raises:
        InputError: no such preset, or more adapted blocks than the tower has.
        BackboneError: a backbone that cannot be had.
    """
    if choice.preset not in METHODS:
        raise InputError(f"There is no method {choice.preset!r}; choose {', '.join(METHODS)}.")
    bare = load_recognizer(choice.backbone, weights=choice.backbone_weights)
    text = None if bare.text is None else bare.text.tower
    method = changed(METHODS[choice.preset], choice)
    if isinstance(bare.config.backbone, VideoNetworkConfig):
        frames = choice.frames or bare.config.frames
        method = replace(method, backbone=bare.config.backbone, frames=frames, fusion="video")
        return build_recognizer(method, bare.video.tower, None, name=name)
    visual, order = method.visual, method.text if text is not None else None
    if visual is not None:
        _check_fits(visual, bare.video.tower, choice.backbone)
    if order is not None and text is not None and order.blocks > len(text.blocks):
        raise InputError(
            f"{order.blocks} adapted text blocks do not fit the {len(text.blocks)} of "
            f"{choice.backbone!r}; give --text-blocks."
        )
    method = replace(method, backbone=bare.config.backbone, text=order)
    return build_recognizer(method, bare.video.tower, text, name=name)


def _check_fits(visual: VisualConfig, tower: Backbone, backbone: str) -> None:
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


def changed(method: MethodConfig, changes: MethodChanges) -> MethodConfig:
    """Return a preset with some changes.

    Raises:
        InputError: no such matcher, or no such squash.
    """
    visual, text, matcher, fusion = method.visual, method.text, method.matcher, method.fusion
    if changes.matcher is not None:
        matcher = matcher_of(changes.matcher)
        if fusion == "product" and not _is_bounded(matcher, method.frames):
            fusion = "video"  # a distance is no factor of a product
    if visual is not None:
        visual = replace(
            visual,
            blocks=visual.blocks if changes.blocks is None else changes.blocks,
            ratio=visual.ratio if changes.ratio is None else changes.ratio,
        )
    if changes.zero_init is not None:
        visual = started(visual, zero_init=changes.zero_init)
    if text is not None and changes.text_blocks is not None:
        text = replace(text, blocks=changes.text_blocks)
    return replace(
        method,
        matcher=matcher,
        fusion=fusion,
        visual=visual,
        text=text,
        query_context=changes.query_context or method.query_context,
        frames=changes.frames or method.frames,
        temporal_embedding="input" if changes.at_input else method.temporal_embedding,
        tune=changes.tune or method.tune,
        align=changes.align or method.align,
        stage_cosine=changes.stage_cosine or method.stage_cosine,
        squash=method.squash if changes.squash is None else squash_of(changes.squash),
        align_norm=method.align_norm if changes.align_norm is None else changes.align_norm,
        **BY_LABEL if changes.text == "label" else {},
    )


def squash_of(share: float) -> float:
    """Check how much larger than the crop squashed frames are.

    Raises:
        InputError: They would not hold it.
    """
    if not 1 <= share <= 4:
        raise InputError(f"--squash is {share:g}; frames are squashed to 1 to 4 times the crop.")
    return share


def started(visual: VisualConfig | None, *, zero_init: bool) -> TaskConfig:
    """Say how the task adapters of adapted blocks start.

    Raises:
        InputError: There are none.
    """
    match visual:
        case TaskConfig():
            return replace(visual, zero_init=zero_init)
        case _:
            raise InputError(
                "The start of task adapters is given for a method without them; leave it out, or "
                "choose a task_adapter preset."
            )


def matcher_of(name: str) -> MatcherConfig:
    """Return a matcher with its own defaults.

    Raises:
        InputError: No matcher has this name.
    """
    if name not in MATCHERS:
        raise InputError(f"There is no matcher {name!r}; choose {', '.join(MATCHERS)}.")
    return MATCHERS[name]


def _is_bounded(config: MatcherConfig, frames: int) -> bool:
    """Tell whether a matcher gives similarities; its weights are not made."""
    with torch.device("meta"):
        return build_matcher(config, FEATURES, frames).bounded
