"""The one assembler: a config to modules. The only file that knows all of them."""

import math
from collections.abc import Sequence
from functools import partial
from typing import assert_never

from model.adapters.aim import AimBlock
from model.adapters.order import OrderBlock
from model.adapters.task import TaskBlock
from model.backbones.blocks import FrozenBlock
from model.backbones.towers import (
    ImageTower,
    TextTower,
    compact_image_tower,
    compact_text_tower,
    open_clip_towers,
    timm_tower,
)
from model.config import (
    AimConfig,
    BackboneConfig,
    BiMhmMatcher,
    CompactConfig,
    DistanceMatcher,
    FramePairMatcher,
    MethodConfig,
    OpenClipConfig,
    OrderConfig,
    OtamMatcher,
    PrototypeMatcher,
    TaskConfig,
    TimmConfig,
    TrxMatcher,
    VisualConfig,
)
from model.encoder import TextEncoder, VideoEncoder
from model.errors import MethodError
from model.matching.cosine import video_scores
from model.matching.frame_pairs import frame_pair_scores
from model.matching.hausdorff import bi_mhm_scores
from model.matching.otam import otam_scores
from model.matching.stages import MIN_FRAMES
from model.matching.trx import Trx
from model.recognizer import Matcher, Recognizer


def build_recognizer(
    config: MethodConfig,
    image: ImageTower,
    text: TextTower | None,
    *,
    name: str = "unnamed",
) -> Recognizer:
    """Put adapters into towers; adapters start at their initial values.

    Raises:
        MethodError: fewer than 4 frames, more adapted blocks than a tower has, or a matcher that
            does not fit the fusion or the frames.
    """
    if config.frames < MIN_FRAMES:
        raise MethodError(
            f"frames is {config.frames}; three stages need {MIN_FRAMES} or more frames a clip."
        )
    recognizer = Recognizer(
        config,
        _video(config, image),
        _text(config.text, text),
        _matcher(config, image.features),
        name=name,
    )
    return recognizer.eval()


def towers(config: BackboneConfig) -> tuple[ImageTower, TextTower | None]:
    """Load or make the backbone.

    Raises:
        BackboneError: it cannot be had, or is no plain ViT.
    """
    match config:
        case OpenClipConfig():
            return open_clip_towers(config)
        case TimmConfig():
            return timm_tower(config), None
        case CompactConfig():
            image = compact_image_tower(config)
            text = compact_text_tower(config.text, config.width) if config.text else None
            return image, text
        case _:
            assert_never(config)


def _video(config: MethodConfig, tower: ImageTower) -> VideoEncoder:
    adapted: list[AimBlock | TaskBlock] = []
    if config.visual is not None:
        top = _top(tower.blocks, config.visual.blocks, "image")
        adapted = [adapt(block, tower.width, config.visual) for block in top]
    return VideoEncoder(
        tower,
        adapted,
        frames=config.frames,
        temporal_embedding=config.temporal_embedding,
        query_context=config.query_context,
    )


def _text(config: OrderConfig | None, tower: TextTower | None) -> TextEncoder | None:
    if tower is None:
        return None
    adapted: list[OrderBlock] = []
    if config is not None:
        top = _top(tower.blocks, config.blocks, "text")
        adapted = [OrderBlock(block, tower.width, config.ratio) for block in top]
    return TextEncoder(tower, adapted)


def adapt(block: FrozenBlock, width: int, config: VisualConfig) -> AimBlock | TaskBlock:
    """Wrap one frozen block in the adapters that `config` describes."""
    match config:
        case AimConfig():
            return AimBlock(block, width, config.ratio, config.joint_scale)
        case TaskConfig():
            return TaskBlock(block, width, config.ratio, zero_init=config.zero_init)
        case _:
            assert_never(config)


def _matcher(config: MethodConfig, features: int) -> Matcher:
    matcher = config.matcher
    if isinstance(matcher, DistanceMatcher) and config.fusion != "video":
        raise MethodError(
            f"The matcher {matcher.kind!r} gives distances, which are no factor of fusion "
            f"{config.fusion!r}; set fusion to 'video'."
        )
    match matcher:
        case PrototypeMatcher():
            return video_scores
        case FramePairMatcher():
            return frame_pair_scores
        case BiMhmMatcher():
            return bi_mhm_scores
        case OtamMatcher():
            return _otam(matcher)
        case TrxMatcher():
            return _trx(matcher, features, config.frames)
        case _:
            assert_never(matcher)


def _otam(config: OtamMatcher) -> Matcher:
    if not 0 < config.smoothing < math.inf:
        raise MethodError(f"smoothing is {config.smoothing}; OTAM needs a number above 0.")
    return partial(otam_scores, smoothing=config.smoothing)


def _trx(config: TrxMatcher, features: int, frames: int) -> Trx:
    fitting = all(1 <= cardinality <= frames for cardinality in config.cardinalities)
    if not config.cardinalities or not fitting:
        raise MethodError(
            f"cardinalities are {list(config.cardinalities)}; TRX needs one or more, each of "
            f"1 to {frames} frames."
        )
    if config.width < 1:
        raise MethodError(f"width is {config.width}; TRX needs keys of width 1 or more.")
    if not 0 <= config.dropout < 1:
        raise MethodError(f"dropout is {config.dropout}; choose 0 or more and less than 1.")
    return Trx(
        features,
        frames,
        cardinalities=config.cardinalities,
        width=config.width,
        dropout=config.dropout,
    )


def _top(blocks: Sequence[FrozenBlock], count: int, tower: str) -> list[FrozenBlock]:
    if not 1 <= count <= len(blocks):
        raise MethodError(
            f"{count} adapted blocks do not fit the {tower} tower; choose 1 to {len(blocks)}."
        )
    return list(blocks[len(blocks) - count :])
