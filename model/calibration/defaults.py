"""Calibrations of weights that none was fitted for: careful ones, by family of backbone.

What a family has was measured on one member of it, or is the most careful of those that were
(training/experiments/calibration.md). A fitted calibration replaces it.
"""

from typing import assert_never

from model.calibration.fitted import Calibration, ShotRow
from model.config.fusion import ConvexFusion, GeometricFusion, SumFusion
from model.config.matching import (
    BiMhmMatcher,
    CacheMatcher,
    FramePairMatcher,
    OtamMatcher,
    PrototypeMatcher,
    RidgeMatcher,
    TrxMatcher,
    TupleMatcher,
)
from model.config.method import MethodConfig
from model.config.towers import (
    CausalConfig,
    CompactConfig,
    OpenClipConfig,
    TimmConfig,
    VideoMaeConfig,
    VideoNetworkConfig,
    VJepa2Config,
)

SHOTS = (1, 5)
THRESHOLDS = (0.0, 0.0)  # of cosines after the mean of the task's own labels
COSINE = (8.0, 12.0)  # scale of a cosine by video alone
TRAINED = 1 / 6  # of distances whose size was learned: our recipe divides them by 6 in its loss
LABELS = 4.0  # scale of a regression to one-hot labels
PRODUCT = 20.0  # scale of a product of two cosines, video times text


def default_calibration(config: MethodConfig) -> Calibration:
    """Return what holds for weights without a calibration of their own."""
    return Calibration(
        source=f"the default of {_family(config)}; nothing was fitted for these weights",
        video=_rows(*_video_scales(config)),
        text=_rows(*_text_scales(config)),
    )


def _rows(*scales: float) -> tuple[ShotRow, ...]:
    return tuple(
        ShotRow(shots=shots, scale=scale, threshold=threshold)
        for shots, scale, threshold in zip(SHOTS, scales, THRESHOLDS, strict=True)
    )


def _family(config: MethodConfig) -> str:
    match config.backbone:
        case CompactConfig() | CausalConfig():
            return "compact networks"
        case TimmConfig():
            return "timm's networks"
        case OpenClipConfig():
            return "open_clip's networks"
        case VideoMaeConfig() | VJepa2Config():
            return "video networks"
        case _:
            assert_never(config.backbone)


def _video_scales(config: MethodConfig) -> tuple[float, float]:
    """Return the factor of a video score's logits at 1 and 5 shots, by what the score is."""
    match config.matcher:
        case PrototypeMatcher() | FramePairMatcher():
            unit = 1.0 if isinstance(config.fusion, GeometricFusion) else config.scale
            return COSINE[0] / unit, COSINE[1] / unit
        case BiMhmMatcher():  # sums of cosine distances over the features of both clips
            terms = 2 * _instants(config)
            return COSINE[0] / terms, COSINE[1] / terms
        case OtamMatcher(one_direction=one):
            terms = _instants(config) * (1 if one else 2)
            return COSINE[0] / terms, COSINE[1] / terms
        case TrxMatcher():
            return TRAINED, TRAINED
        case CacheMatcher(sharpness=sharpness):  # at its steepest, affinity follows sharpness
            unit = (1.0 if isinstance(config.fusion, GeometricFusion) else config.scale) * sharpness
            return COSINE[0] / unit, COSINE[1] / unit
        case TupleMatcher():  # a mean over the features of a clip, for both clips
            return COSINE[0] / 2, COSINE[1] / 2
        case RidgeMatcher(scale=scale):
            return LABELS / scale, LABELS / scale
        case _:
            assert_never(config.matcher)


def _instants(config: MethodConfig) -> int:
    """Return how many features a clip has."""
    backbone = config.backbone
    tubelet = backbone.tubelet if isinstance(backbone, VideoNetworkConfig) else 1
    return config.frames // tubelet


def _text_scales(config: MethodConfig) -> tuple[float, float]:
    match config.fusion:
        case "product":
            return PRODUCT / config.scale, PRODUCT / config.scale
        case "video":
            return _video_scales(config)
        case GeometricFusion() | ConvexFusion() | SumFusion():
            return 1.0, 1.0  # logarithms of probabilities
        case _:
            assert_never(config.fusion)
