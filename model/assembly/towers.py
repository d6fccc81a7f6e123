"""Encoders: a tower, its adapted blocks, and what happens along time above it."""

from collections.abc import Sequence
from typing import TypeVar, assert_never, cast

from model.adapters.aim import ALL, CLASS_TOKEN, AimBlock
from model.adapters.d2st import LEAST_FRAMES, PATCHES, STAGE_HEADS, STAGES, D2stAdapter, D2stBlock
from model.adapters.multimodal import MultimodalBlock
from model.adapters.order import OrderBlock
from model.adapters.task import TaskBlock
from model.adapters.ted import TedBlock
from model.assembly.temporal import build_temporal
from model.config.blocks import (
    AimConfig,
    D2stConfig,
    MultimodalConfig,
    OrderConfig,
    TaskConfig,
    TedConfig,
    VisualConfig,
)
from model.config.method import MethodConfig
from model.config.towers import WholeClipConfig
from model.encoder import ClipEncoder, TextEncoder, VideoEncoder
from model.errors import MethodError
from model.slots import AdaptedBlock, Backbone, ClipBackbone, TextBackbone, TransformerBlock

B = TypeVar("B")


def build_video(config: MethodConfig, tower: Backbone | ClipBackbone) -> VideoEncoder:
    """Put the adapted blocks into an image tower, or take a video network as it is.

    Raises:
        MethodError: The parts do not fit the tower.
    """
    whole = isinstance(config.backbone, WholeClipConfig)
    levels = () if whole else cast(Backbone, tower).level_widths
    frames = cast(ClipBackbone, tower).instants(config.frames) if whole else config.frames
    temporal = build_temporal(config.temporal, tower.features, frames, levels)
    if isinstance(config.backbone, WholeClipConfig):
        if config.visual is not None or config.tune == "all" or config.tower_parts:
            raise MethodError(
                f"A {config.backbone.kind} network sees a whole clip and stays frozen; leave "
                "adapted blocks and tune 'all' out, as the preset `frozen` does."
            )
        return ClipEncoder(cast(ClipBackbone, tower), frames=config.frames, temporal=temporal)
    image = cast(Backbone, tower)
    if isinstance(config.visual, D2stConfig) and config.frames < LEAST_FRAMES:
        raise MethodError(
            f"frames is {config.frames}; D2ST adapters need {LEAST_FRAMES} or more frames a clip."
        )
    return VideoEncoder(
        image,
        _adapted(config.visual, image, maps=temporal is not None and temporal.reads_levels > 0),
        frames=config.frames,
        temporal_embedding=config.temporal_embedding,
        temporal=temporal,
        projected=config.projected,
    )


def build_text(config: OrderConfig | None, tower: TextBackbone | None) -> TextEncoder | None:
    """Put the adapted blocks into a text tower; without a tower there is no text.

    Raises:
        MethodError: More adapted blocks than the tower has.
    """
    if tower is None:
        return None
    adapted: list[OrderBlock] = []
    if config is not None:
        top = _top(tower.blocks, config.blocks, "text")
        adapted = [OrderBlock(block, tower.width, config.ratio) for block in top]
    return TextEncoder(tower, adapted)


def _adapted(config: VisualConfig | None, tower: Backbone, *, maps: bool) -> list[AdaptedBlock]:
    if config is None:
        return []
    if isinstance(config, D2stConfig):
        return _d2st(config, tower)
    if tower.staged:
        raise MethodError(
            f"{config.kind!r} adapters wrap attention, and a ResNet has none; choose a ViT."
        )
    if isinstance(config, TedConfig) and tower.prefix_tokens != 1:
        raise MethodError(
            f"TED adapters need one token in front of the patches, not {tower.prefix_tokens}; "
            "choose a ViT with a class token and no registers."
        )
    if isinstance(config, MultimodalConfig) and not tower.prefix_tokens:
        raise MethodError(
            "MA-CLIP's blocks follow the class token along time, and this tower has none; choose "
            "a ViT with a class token, such as a CLIP's."
        )
    top = _top(tower.blocks, config.blocks, "image")
    last = CLASS_TOKEN if tower.reads_class_token and not maps else ALL
    reads = [ALL] * (len(top) - 1) + [last]
    return [
        adapt(cast(TransformerBlock, block), tower, config, read)
        for block, read in zip(top, reads, strict=True)
    ]


def _d2st(config: D2stConfig, tower: Backbone) -> list[AdaptedBlock]:
    top = _top(tower.blocks, config.blocks, "image")
    if tower.staged:
        shapes = list(zip(tower.level_widths, STAGE_HEADS, STAGES, strict=True))[-len(top) :]
    else:
        shapes = [(tower.width, config.heads, PATCHES)] * len(top)
    adapted: list[AdaptedBlock] = []
    for block, (width, heads, pathways) in zip(top, shapes, strict=True):
        hidden = int(width * config.ratio)
        if not hidden or hidden % heads:
            raise MethodError(
                f"{heads} heads do not divide adapters of width {hidden}; choose another ratio."
            )
        adapter = D2stAdapter(
            width, hidden, heads, pathways, prefix=tower.prefix_tokens, bent=not tower.staged
        )
        adapted.append(D2stBlock(block, adapter))
    return adapted


def _top(blocks: Sequence[B], count: int, tower: str) -> list[B]:
    if not 1 <= count <= len(blocks):
        raise MethodError(
            f"{count} adapted blocks do not fit the {tower} tower; choose 1 to {len(blocks)}."
        )
    return list(blocks[len(blocks) - count :])


def adapt(
    block: TransformerBlock,
    tower: Backbone,
    config: AimConfig | TaskConfig | TedConfig | MultimodalConfig,
    reads: slice = ALL,
) -> AdaptedBlock:
    """Wrap one block in the adapters that `config` describes; others read `reads` of its tokens."""
    width = tower.width
    match config:
        case AimConfig():
            return AimBlock(block, width, config.ratio, config.joint_scale, reads)
        case TaskConfig():
            return TaskBlock(block, width, config.ratio, zero_init=config.zero_init, reads=reads)
        case TedConfig():
            return TedBlock(block, width, config.ratio, before_attention=config.before_attention)
        case MultimodalConfig(ratio=ratio, joint_scale=scale):
            texts = tower.features  # a text tower ends in the same space
            return MultimodalBlock(block, width, texts, ratio=ratio, joint_scale=scale, reads=reads)
        case _:
            assert_never(config)
