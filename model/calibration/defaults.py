"""Calibrations of weights that none was fitted for: careful ones, by family of backbone.

What a family has was measured on one member of it, or is the most careful of those that were
(training/experiments/calibration.md). A fitted calibration replaces it.
"""

from model.calibration.fitted import Calibration, ShotRow
from model.config.method import MethodConfig
from model.config.root import Scales

SHOTS = (1, 5)
THRESHOLDS = (0.0, 0.0)  # of cosines after the mean of the task's own labels
PRODUCT = 20.0  # scale of a product of two cosines, video times text


def default_calibration(config: MethodConfig) -> Calibration:
    """Return what holds for weights without a calibration of their own."""
    return Calibration(
        source=f"the default of {config.backbone.family}; nothing was fitted for these weights",
        video=_rows(_video_scales(config)),
        text=_rows(_text_scales(config)),
    )


def _rows(scales: Scales) -> tuple[ShotRow, ...]:
    return tuple(
        ShotRow(shots=shots, scale=scale, threshold=threshold)
        for shots, scale, threshold in zip(SHOTS, scales, THRESHOLDS, strict=True)
    )


def _video_scales(config: MethodConfig) -> Scales:
    fusion = config.fusion
    multiplied = isinstance(fusion, str) or fusion.multiplies
    instants = config.backbone.instants(config.frames)
    return config.matcher.size.of(instants, config.scale if multiplied else 1.0)


def _text_scales(config: MethodConfig) -> Scales:
    if config.fusion == "product":
        return PRODUCT / config.scale, PRODUCT / config.scale
    if config.fusion == "video":
        return _video_scales(config)
    return config.fusion.scales
