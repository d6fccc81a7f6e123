"""The named methods: a plain dict of values. Variants are made by `dataclasses.replace`.

Scene datasets (HMDB51, UCF101, Kinetics) adapt 2 visual and 8 text blocks, temporal ones (SSv2)
6 and 2, as the Task-Adapter++ paper does. The query contexts are the served ones of the design;
`joint` is the paper's and stays in training.
"""

from dataclasses import replace

from model.config.blocks import (
    AimConfig,
    D2stConfig,
    MultimodalConfig,
    OrderConfig,
    TaskConfig,
    TedConfig,
    TextAdapterConfig,
)
from model.config.fusion import ConvexFusion, GeometricFusion, SumFusion
from model.config.matching import (
    BiMhmMatcher,
    CacheMatcher,
    OtamMatcher,
    RidgeMatcher,
    TrxMatcher,
    TupleMatcher,
)
from model.config.method import Align, MethodConfig, QueryContext
from model.config.prototypes import GraphPrototypes, TextGuidedPrototypes, TextTokenPrototypes
from model.config.temporal import (
    ConvolutionConfig,
    DenseConfig,
    SloshNetConfig,
    TransformerConfig,
)
from model.config.towers import (
    BackboneConfig,
    CompactConfig,
    OpenClipConfig,
    PackagedConfig,
    TimmConfig,
    VideoNetworkConfig,
)
from model.errors import MethodError
from model.text import TEMPLATES

SERVED_CONTEXTS: tuple[QueryContext, ...] = ("none", "self", "support", "prototype")
SERVED_ALIGNS: tuple[Align, ...] = ("identity", "temporal")

VIDEO_FRAMES = 16  # of a clip, for networks that see whole ones; VideoMAE knows no other number
_CLIP = OpenClipConfig(name="ViT-B-16-quickgelu", pretrained="openai")
_RAW_TRX = TrxMatcher(cardinalities=(1,), standardised=False)
_RESNET = TimmConfig(name="resnet50.tv_in1k")  # torchvision's

_ACTIONCLIP = MethodConfig(
    backbone=_CLIP,
    tune="towers",
    temporal=TransformerConfig(),
    fusion=ConvexFusion(),
    scale=100.0,
    stages=1,
    prompt=TEMPLATES,
)
_M2CLIP = MethodConfig(  # `12x384`
    backbone=_CLIP,
    visual=TedConfig(blocks=12),
    temporal_embedding="none",
    temporal=ConvolutionConfig(),
    text=TextAdapterConfig(blocks=1),
    matcher=BiMhmMatcher(),
    fusion=ConvexFusion(),
    scale=100.0,
    stages=1,
    prompt="A video of {stage}",
)

METHODS: dict[str, MethodConfig] = {
    "frozen": MethodConfig(backbone=_CLIP),
    "tip_adapter": MethodConfig(
        backbone=_CLIP,
        matcher=CacheMatcher(),
        fusion=SumFusion(),
        stages=1,
        prompt="a photo of {stage}",
    ),
    "ridge": MethodConfig(backbone=_CLIP, matcher=RidgeMatcher(), fusion="video"),
    "aim": MethodConfig(
        backbone=_CLIP,
        visual=AimConfig(blocks=12),
        temporal_embedding="input",
        tower_parts=("last_norm",),
    ),
    "aim_top": MethodConfig(backbone=_CLIP, visual=AimConfig(blocks=6)),
    "task_adapter": MethodConfig(
        backbone=_CLIP, visual=TaskConfig(blocks=6), query_context="support"
    ),
    "task_adapter_pp": MethodConfig(
        backbone=_CLIP,
        visual=TaskConfig(blocks=2),
        query_context="support",
        text=OrderConfig(blocks=8),
    ),
    "task_adapter_pp_temporal": MethodConfig(
        backbone=_CLIP,
        visual=TaskConfig(blocks=6),
        query_context="support",
        text=OrderConfig(blocks=2),
    ),
    "ted": MethodConfig(
        backbone=_CLIP,
        visual=TedConfig(blocks=12),
        temporal=ConvolutionConfig(),
        matcher=BiMhmMatcher(),
        fusion="video",
    ),
    "d2st": MethodConfig(
        backbone=_CLIP,
        visual=D2stConfig(),
        temporal_embedding="input",
        tower_parts=("class_token", "last_norm"),
        projected=False,
        matcher=BiMhmMatcher(),
        fusion="video",
    ),
    "d2st_resnet50": MethodConfig(
        backbone=_RESNET, visual=D2stConfig(blocks=4), matcher=BiMhmMatcher(), fusion="video"
    ),
    "sloshnet": MethodConfig(
        backbone=_RESNET, tune="all", temporal=SloshNetConfig(), matcher=_RAW_TRX, fusion="video"
    ),
    "sloshnet_vit": MethodConfig(
        backbone=_CLIP, temporal=SloshNetConfig(), matcher=_RAW_TRX, fusion="video"
    ),
    "clip_fsar": MethodConfig(
        backbone=_CLIP,
        tune="all",
        prototypes=TextTokenPrototypes(),
        matcher=OtamMatcher(smoothing=0.5, eps=0.01),
        fusion=GeometricFusion(),
        stages=1,
        prompt="a photo of {stage}",
    ),
    "actionclip": _ACTIONCLIP,
    "actionclip_text": replace(_ACTIONCLIP, fusion=ConvexFusion(text_share=1.0)),
    "m2clip": _M2CLIP,
    "m2clip_temporal": replace(
        _M2CLIP,
        visual=TedConfig(blocks=12, before_attention=True),
        text=TextAdapterConfig(blocks=12, before_attention=True),
    ),
    "ma_clip": MethodConfig(
        backbone=_CLIP,
        visual=MultimodalConfig(blocks=12),
        temporal_embedding="input",
        prototypes=TextGuidedPrototypes(),
        matcher=OtamMatcher(smoothing=0.5),
        fusion=ConvexFusion(),
        stages=1,
        prompt="a photo of {stage}",
    ),
    "gghm": MethodConfig(
        backbone=_RESNET,
        tune="all",
        temporal=DenseConfig(),
        prototypes=GraphPrototypes(),
        matcher=TupleMatcher(),
        fusion="video",
    ),
}


def bare_method(backbone: BackboneConfig) -> MethodConfig:
    """Return the method that an untrained backbone is served with."""
    if isinstance(backbone, VideoNetworkConfig):
        return MethodConfig(backbone=backbone, frames=VIDEO_FRAMES, fusion="video")
    return MethodConfig(backbone=backbone)


def compact_method(backbone: PackagedConfig) -> MethodConfig:
    """Return the method that the packaged compact towers are served with."""
    adapted = isinstance(backbone, CompactConfig)
    return MethodConfig(
        backbone=backbone,
        visual=TaskConfig(blocks=2) if adapted else None,
        query_context="none",
        text=OrderConfig(blocks=1) if adapted and backbone.text else None,
    )


def check_served(config: MethodConfig) -> None:
    """Refuse a method whose answers depend on other queries, with a MethodError."""
    chosen = {"query_context": config.query_context, "align": config.align}
    if config.prototypes.kind == "graph" and config.prototypes.joint:
        raise MethodError(
            "prototypes.joint puts all queries into one graph, so that they see each other; serve "
            "a graph for each query (joint false)."
        )
    for field, value in chosen.items():
        if value == "joint":
            served = SERVED_CONTEXTS if field == "query_context" else SERVED_ALIGNS
            raise MethodError(
                f"{field} 'joint' lets queries see each other; serve one of {served}."
            )
    if isinstance(config.temporal, SloshNetConfig) and config.temporal.released:
        raise MethodError(
            "temporal 'sloshnet' with released true lets clips see each other; serve it with "
            "released false."
        )
