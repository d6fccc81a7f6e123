"""The text score, and how it meets the video score."""

from typing import assert_never

from torch import nn

from model.config.fusion import ConvexFusion, GeometricFusion, SumFusion, TrustFusion
from model.config.method import MethodConfig
from model.errors import MethodError
from model.fusion import Convex, Geometric, Product, Sum, Trust, VideoOnly
from model.matching.stages import LabelCosine, LabelText, StageText, TemplateText
from model.slots import Fusion, Matcher, TextHead


def build_text_head(config: MethodConfig, features: int) -> TextHead:
    """Build what compares queries with the text of classes, by features of this width."""
    match config.fusion:
        case GeometricFusion():
            return LabelText()
        case ConvexFusion(sharpness=sharpness) | SumFusion(sharpness=sharpness):
            return TemplateText(sharpness)
        case "video" | "product" | TrustFusion():
            if config.text_head == "label":
                return LabelCosine()
            norm = nn.LayerNorm(features) if config.align_norm else None
            return StageText(config.stages, config.align, config.stage_cosine, norm)
        case _:
            assert_never(config.fusion)


def build_fusion(config: MethodConfig, matcher: Matcher) -> Fusion:
    """Build what makes logits of both scores.

    Raises:
        MethodError: The matcher's score is no factor of this fusion.
    """
    fusion: Fusion
    match config.fusion:
        case "video":
            fusion = VideoOnly(config.scale if matcher.bounded else 1.0)
        case "product":
            fusion = Product(config.scale)
        case GeometricFusion(text_share=share, softness=softness):
            fusion = Geometric(share, softness)
        case ConvexFusion(text_share=share):
            fusion = Convex(share, config.scale if matcher.bounded else 1.0)
        case SumFusion(video_weight=weight):
            fusion = Sum(weight, config.scale if matcher.bounded else 1.0)
        case TrustFusion(video=video, text=text, doubt=doubt):
            fusion = Trust(config.scale, video, text, doubt)
        case _:
            assert_never(config.fusion)
    if fusion.needs_bounded and not matcher.bounded:
        raise MethodError(
            f"The matcher {config.matcher.kind!r} gives distances, which are no factor of fusion "
            f"{config.fusion!r}; set fusion to 'video', 'geometric' or 'convex'."
        )
    return fusion
