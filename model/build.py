"""The one assembler: a config to modules. The only file that knows all of them."""

import math
from collections.abc import Sequence
from typing import assert_never, cast

from model.adapters.aim import ALL, CLASS_TOKEN, AimBlock
from model.adapters.order import OrderBlock
from model.adapters.task import TaskBlock
from model.adapters.ted import TedBlock
from model.config import (
    AimConfig,
    BiMhmMatcher,
    FramePairMatcher,
    GeometricFusion,
    MatcherConfig,
    MeanPrototypes,
    MethodConfig,
    OrderConfig,
    OtamMatcher,
    PrototypeMatcher,
    PrototypesConfig,
    TaskConfig,
    TedConfig,
    TextTokenPrototypes,
    TrxMatcher,
    VisualConfig,
    WholeClipConfig,
)
from model.encoder import ClipEncoder, TextEncoder, VideoEncoder
from model.errors import MethodError
from model.fusion import Geometric, Product, VideoOnly
from model.matching.cosine import CosineOfMeans, FramePairs
from model.matching.hausdorff import BiMhm
from model.matching.otam import Otam
from model.matching.stages import LabelText, StageText
from model.matching.trx import Trx
from model.prototypes import mean, text_token
from model.recognizer import Recognizer
from model.slots import (
    AdaptedBlock,
    Backbone,
    ClipBackbone,
    Fusion,
    Matcher,
    Prototypes,
    TextBackbone,
    TextHead,
    TransformerBlock,
)
from model.temporal.convolution import TemporalConvolution
from model.text import places


def build_recognizer(
    config: MethodConfig,
    image: Backbone | ClipBackbone,
    text: TextBackbone | None,
    *,
    name: str = "unnamed",
) -> Recognizer:
    """Put parts into their slots; they start at their initial values.

    Raises:
        MethodError: the parts do not fit each other or the towers.
    """
    video = _video(config, image)
    matcher = build_matcher(config.matcher, image.features, video.instants)
    head = _text_head(config)
    recognizer = Recognizer(
        config,
        video,
        _text(config.text, text),
        _prototypes(config.prototypes, image.features, keep_shots=matcher.reads_shots),
        matcher,
        head,
        _fusion(config, matcher),
        name=name,
    )
    if recognizer.has_text and config.frames < head.least_frames:
        raise MethodError(
            f"frames is {config.frames}; {config.stages} stages need {head.least_frames} or more "
            "frames a clip."
        )
    _check_prompt(config.prompt)
    _tune(config, recognizer)
    return recognizer.eval()


def adapt(
    block: TransformerBlock, width: int, config: VisualConfig, reads: slice = ALL
) -> AdaptedBlock:
    """Wrap one block in the adapters that `config` describes; others read `reads` of its tokens."""
    match config:
        case AimConfig():
            return AimBlock(block, width, config.ratio, config.joint_scale, reads)
        case TaskConfig():
            return TaskBlock(block, width, config.ratio, zero_init=config.zero_init, reads=reads)
        case TedConfig():
            return TedBlock(block, width, config.ratio, before_attention=config.before_attention)
        case _:
            assert_never(config)


def _video(config: MethodConfig, tower: Backbone | ClipBackbone) -> VideoEncoder:
    temporal = None
    if config.temporal is not None:
        temporal = TemporalConvolution(tower.features, config.temporal.ratio)
    if isinstance(config.backbone, WholeClipConfig):
        if config.visual is not None or config.tune == "all":
            raise MethodError(
                f"A {config.backbone.kind} network sees a whole clip and stays frozen; leave "
                "adapted blocks and tune 'all' out, as the preset `frozen` does."
            )
        return ClipEncoder(cast(ClipBackbone, tower), frames=config.frames, temporal=temporal)
    image = cast(Backbone, tower)
    return VideoEncoder(
        image,
        _adapted(config.visual, image),
        frames=config.frames,
        temporal_embedding=config.temporal_embedding,
        temporal=temporal,
    )


def _adapted(config: VisualConfig | None, tower: Backbone) -> list[AdaptedBlock]:
    if config is None:
        return []
    if isinstance(config, TedConfig) and tower.prefix_tokens != 1:
        raise MethodError(
            f"TED adapters need one token in front of the patches, not {tower.prefix_tokens}; "
            "choose a ViT with a class token and no registers."
        )
    top = _top(tower.blocks, config.blocks, "image")
    last = CLASS_TOKEN if tower.reads_class_token else ALL
    reads = [ALL] * (len(top) - 1) + [last]
    return [adapt(block, tower.width, config, read) for block, read in zip(top, reads, strict=True)]


def _text(config: OrderConfig | None, tower: TextBackbone | None) -> TextEncoder | None:
    if tower is None:
        return None
    adapted: list[OrderBlock] = []
    if config is not None:
        top = _top(tower.blocks, config.blocks, "text")
        adapted = [OrderBlock(block, tower.width, config.ratio) for block in top]
    return TextEncoder(tower, adapted)


def _prototypes(config: PrototypesConfig, features: int, *, keep_shots: bool) -> Prototypes:
    match config:
        case MeanPrototypes():
            return mean.MeanPrototypes(keep_shots=keep_shots)
        case TextTokenPrototypes():
            if features % config.heads:
                raise MethodError(
                    f"{config.heads} heads do not divide features of width {features}; "
                    "choose another number."
                )
            layers = [
                text_token.Layer(
                    features,
                    heads=config.heads,
                    hidden=config.hidden,
                    dropout=config.dropout,
                    mlp_dropout=config.mlp_dropout,
                )
                for _ in range(config.depth)
            ]
            return text_token.TextTokenPrototypes(
                layers, merge_before=config.merge_before, keep_shots=keep_shots
            )
        case _:
            assert_never(config)


def build_matcher(config: MatcherConfig, features: int, frames: int) -> Matcher:
    """Build the video score.

    Args:
        config: Which.
        features: Width of a frame's features.
        frames: Of a clip.

    Raises:
        MethodError: a value of the config is out of range.
    """
    match config:
        case PrototypeMatcher():
            return CosineOfMeans()
        case FramePairMatcher():
            return FramePairs()
        case BiMhmMatcher():
            return BiMhm()
        case OtamMatcher():
            return _otam(config)
        case TrxMatcher():
            return _trx(config, features, frames)
        case _:
            assert_never(config)


def _text_head(config: MethodConfig) -> TextHead:
    if isinstance(config.fusion, GeometricFusion):
        return LabelText()
    return StageText(config.stages, config.align, config.stage_cosine)


def _fusion(config: MethodConfig, matcher: Matcher) -> Fusion:
    fusion: Fusion
    match config.fusion:
        case "video":
            fusion = VideoOnly(config.scale if matcher.bounded else 1.0)
        case "product":
            fusion = Product(config.scale)
        case GeometricFusion(text_share=share, softness=softness):
            fusion = Geometric(share, softness)
        case _:
            assert_never(config.fusion)
    if fusion.needs_bounded and not matcher.bounded:
        raise MethodError(
            f"The matcher {config.matcher.kind!r} gives distances, which are no factor of fusion "
            f"{config.fusion!r}; set fusion to 'video' or 'geometric'."
        )
    return fusion


def _tune(config: MethodConfig, recognizer: Recognizer) -> None:
    """Say which weights learn: the backbone's, the adapters' and those of the parts above."""
    video, text = recognizer.video, recognizer.text
    video.tower.model.requires_grad_(config.tune == "all")
    if text is not None:
        text.tower.model.requires_grad_(False)
    if config.tune == "frozen":
        video.adapted.requires_grad_(False)
        if text is not None:
            text.adapted.requires_grad_(False)
        if video.temporal_embedding is not None:
            video.temporal_embedding.requires_grad_(False)


def _check_prompt(prompt: str) -> None:
    """Refuse a prompt with places that nothing fills."""
    try:
        named = places(prompt)
    except ValueError:
        named = {prompt}
    if unknown := sorted(named - {"label", "stage"}):
        raise MethodError(
            f"The prompt {prompt!r} has the place {unknown[0]!r}; use {{label}} and {{stage}}."
        )


def _otam(config: OtamMatcher) -> Otam:
    if not 0 < config.smoothing < math.inf:
        raise MethodError(f"smoothing is {config.smoothing}; OTAM needs a number above 0.")
    return Otam(config.smoothing, eps=config.eps, one_direction=config.one_direction)


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


def _top(blocks: Sequence[TransformerBlock], count: int, tower: str) -> list[TransformerBlock]:
    if not 1 <= count <= len(blocks):
        raise MethodError(
            f"{count} adapted blocks do not fit the {tower} tower; choose 1 to {len(blocks)}."
        )
    return list(blocks[len(blocks) - count :])
