"""The video score, and how large it is."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from model.config.root import Config, Positive, Scales


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreSize:
    """How large a score is: what makes probabilities of it until a calibration is fitted.

    Args:
        scales: Of one unit of the score; by default of a cosine.
        unit: What the score is multiplied with.
        summed: Whether it is a sum over the features of a clip.
        scaled: Whether the method's `scale` multiplies it, as it does similarities.
    """

    scales: Scales = (8.0, 12.0)
    unit: float = 1.0
    summed: bool = False
    scaled: bool = False

    def of(self, instants: int, scale: float) -> Scales:
        """Return the scales of a score, by the features of a clip and what multiplies it."""
        unit = self.unit * (instants if self.summed else 1) * (scale if self.scaled else 1)
        return self.scales[0] / unit, self.scales[1] / unit


@dataclass(frozen=True, slots=True, kw_only=True)
class PrototypeMatcher(Config):
    """Cosine of frame means (model/papers/matching.md)."""

    kind: Literal["prototype"] = "prototype"

    @property
    def size(self) -> ScoreSize:
        """A cosine."""
        return ScoreSize(scaled=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class FramePairMatcher(Config):
    """Mean cosine of all pairs of frames (model/papers/matching.md)."""

    kind: Literal["frame_pairs"] = "frame_pairs"

    @property
    def size(self) -> ScoreSize:
        """A mean of cosines."""
        return ScoreSize(scaled=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class BiMhmMatcher(Config):
    """Bidirectional mean Hausdorff metric (HyRSM; model/papers/matching.md)."""

    kind: Literal["bi_mhm"] = "bi_mhm"

    @property
    def size(self) -> ScoreSize:
        """Cosine distances over the features of both clips."""
        return ScoreSize(unit=2, summed=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class OtamMatcher(Config):
    """Soft temporal alignment (OTAM; model/papers/matching.md)."""

    kind: Literal["otam"] = "otam"
    smoothing: float = 0.1  # lambda; CLIP-FSAR and D2ST use 0.5
    eps: Annotated[float, Field(ge=0, exclude_if=lambda eps: not eps)] = 0.0  # CLIP-FSAR: 0.01
    one_direction: Annotated[bool, Field(exclude_if=lambda one: not one)] = False

    @property
    def size(self) -> ScoreSize:
        """Cosine distances along a path, or along one each way."""
        return ScoreSize(unit=1 if self.one_direction else 2, summed=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrxMatcher(Config):
    """Attention between ordered tuples of frames, trained (TRX; model/papers/matching.md)."""

    kind: Literal["trx"] = "trx"
    cardinalities: tuple[int, ...] = (2, 3)  # frames of a tuple
    width: int = 1152  # of keys and values
    dropout: float = 0.1
    # Whether frames are standardised first; the release takes them as they are.
    standardised: Annotated[bool, Field(exclude_if=lambda first: first)] = True

    @property
    def size(self) -> ScoreSize:
        """Distances whose size is learned: our recipe divides them by 6 in its loss."""
        return ScoreSize(scales=(1 / 6, 1 / 6))


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheMatcher(Config):
    """Affinity to each shot (Tip-Adapter; model/papers/matching.md)."""

    kind: Literal["cache"] = "cache"
    sharpness: Positive = 5.5  # beta

    @property
    def size(self) -> ScoreSize:
        """An affinity that follows `sharpness` at its steepest."""
        return ScoreSize(unit=self.sharpness, scaled=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class RidgeMatcher(Config):
    """A linear classifier of the supports in closed form (model/papers/matching.md)."""

    kind: Literal["ridge"] = "ridge"
    penalty: Positive = 0.1  # lambda, beside cosines of unit features
    scale: Positive = 8.0  # of the scores

    @property
    def size(self) -> ScoreSize:
        """A regression to one-hot labels."""
        return ScoreSize(scales=(4.0, 4.0), unit=self.scale)


@dataclass(frozen=True, slots=True, kw_only=True)
class TupleMatcher(Config):
    """Frames and ordered pairs of frames to their nearest (GgHM; model/papers/gghm.md)."""

    kind: Literal["tuples"] = "tuples"
    tuple_share: Annotated[float, Field(ge=0, le=1)] = 0.5  # alpha; by val
    metric: Literal["cosine", "l2"] = "cosine"

    @property
    def size(self) -> ScoreSize:
        """Mean cosine distances over the features, of both clips."""
        return ScoreSize(unit=2)


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
