"""The video score."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from model.config.root import Config, Positive


@dataclass(frozen=True, slots=True, kw_only=True)
class PrototypeMatcher(Config):
    """Cosine of frame means (model/papers/matching.md)."""

    kind: Literal["prototype"] = "prototype"


@dataclass(frozen=True, slots=True, kw_only=True)
class FramePairMatcher(Config):
    """Mean cosine of all pairs of frames (model/papers/matching.md)."""

    kind: Literal["frame_pairs"] = "frame_pairs"


@dataclass(frozen=True, slots=True, kw_only=True)
class BiMhmMatcher(Config):
    """Bidirectional mean Hausdorff metric (HyRSM; model/papers/matching.md)."""

    kind: Literal["bi_mhm"] = "bi_mhm"


@dataclass(frozen=True, slots=True, kw_only=True)
class OtamMatcher(Config):
    """Soft temporal alignment (OTAM; model/papers/matching.md)."""

    kind: Literal["otam"] = "otam"
    smoothing: float = 0.1  # lambda; CLIP-FSAR and D2ST use 0.5
    eps: Annotated[float, Field(ge=0, exclude_if=lambda eps: not eps)] = 0.0  # CLIP-FSAR: 0.01
    one_direction: Annotated[bool, Field(exclude_if=lambda one: not one)] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TrxMatcher(Config):
    """Attention between ordered tuples of frames, trained (TRX; model/papers/matching.md)."""

    kind: Literal["trx"] = "trx"
    cardinalities: tuple[int, ...] = (2, 3)  # frames of a tuple
    width: int = 1152  # of keys and values
    dropout: float = 0.1
    # Whether frames are standardised first; the release takes them as they are.
    standardised: Annotated[bool, Field(exclude_if=lambda first: first)] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheMatcher(Config):
    """Affinity to each shot (Tip-Adapter; model/papers/matching.md)."""

    kind: Literal["cache"] = "cache"
    sharpness: Positive = 5.5  # beta


@dataclass(frozen=True, slots=True, kw_only=True)
class RidgeMatcher(Config):
    """A linear classifier of the supports in closed form (model/papers/matching.md)."""

    kind: Literal["ridge"] = "ridge"
    penalty: Positive = 0.1  # lambda, beside cosines of unit features
    scale: Positive = 8.0  # of the scores


@dataclass(frozen=True, slots=True, kw_only=True)
class TupleMatcher(Config):
    """Frames and ordered pairs of frames to their nearest (GgHM; model/papers/gghm.md)."""

    kind: Literal["tuples"] = "tuples"
    tuple_share: Annotated[float, Field(ge=0, le=1)] = 0.5  # alpha; by val
    metric: Literal["cosine", "l2"] = "cosine"


COSINE = PrototypeMatcher()
# The default is left out of method.json, so that fingerprints from before these fields stay.
MatcherConfig = Annotated[
    PrototypeMatcher
    | FramePairMatcher
    | BiMhmMatcher
    | OtamMatcher
    | TrxMatcher
    | CacheMatcher
    | RidgeMatcher
    | TupleMatcher,
    Field(discriminator="kind", exclude_if=lambda matcher: matcher == COSINE),
]
