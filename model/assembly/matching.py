"""The video score."""

import math
from typing import assert_never

from model.config.matching import (
    BiMhmMatcher,
    CacheMatcher,
    FramePairMatcher,
    MatcherConfig,
    OtamMatcher,
    PrototypeMatcher,
    RidgeMatcher,
    TrxMatcher,
    TupleMatcher,
)
from model.errors import MethodError
from model.matching.cache import Cache
from model.matching.cosine import CosineOfMeans, FramePairs
from model.matching.hausdorff import BiMhm
from model.matching.otam import Otam
from model.matching.ridge import Ridge
from model.matching.trx import Trx
from model.matching.tuples import Tuples
from model.slots import Matcher


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
        case CacheMatcher(sharpness=sharpness):
            return Cache(sharpness)
        case RidgeMatcher(penalty=penalty, scale=scale):
            return Ridge(penalty, scale)
        case TupleMatcher(tuple_share=share, metric=metric):
            if frames < 2:
                raise MethodError(
                    f"A clip has {frames} features along time, and pairs need 2 or more; give "
                    "more frames."
                )
            return Tuples(frames, features, share, metric)
        case _:
            assert_never(config)


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
        standardised=config.standardised,
    )
