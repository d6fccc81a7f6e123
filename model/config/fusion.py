"""How video score and text score meet, and how large the logits are."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from model.config.root import Config, Scales


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixing(Config):
    """What a fusion of two softmaxes, or of logits, declares."""

    scales: ClassVar[Scales] = (1.0, 1.0)  # with text; those of logarithms of probabilities
    multiplies: ClassVar[bool] = True  # similarities by the method's `scale`, without text


@dataclass(frozen=True, slots=True, kw_only=True)
class GeometricFusion(Mixing):
    """Weighted geometric mean of two softmaxes (CLIP-FSAR; model/papers/clip_fsar.md)."""

    multiplies: ClassVar[bool] = False

    kind: Literal["geometric"] = "geometric"
    text_share: Annotated[float, Field(ge=0, le=1)] = 0.9  # exponent of its softmax; by val
    softness: Annotated[float, Field(gt=0)] = 8.0  # divides distances


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvexFusion(Mixing):
    """Weighted sum of two softmaxes (ActionCLIP, MA-CLIP; model/papers/actionclip.md)."""

    kind: Literal["convex"] = "convex"
    text_share: Annotated[float, Field(ge=0, le=1)] = 0.5  # weight of its softmax; by val
    sharpness: Annotated[float, Field(gt=0)] = 100.0  # of the text's cosines


@dataclass(frozen=True, slots=True, kw_only=True)
class SumFusion(Mixing):
    """Scaled cosine of the text plus the weighted video score (Tip-Adapter)."""

    kind: Literal["sum"] = "sum"
    sharpness: Annotated[float, Field(gt=0)] = 100.0  # of the text's cosines
    video_weight: Annotated[float, Field(gt=0)] = 1.0  # alpha; by val


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustFusion(Mixing):
    """Video score plus text score, weighed by what the text says of a task's own supports."""

    kind: Literal["trust"] = "trust"
    video: Annotated[float, Field(gt=0)] = 6.0  # of the video's cosine; by val, as the others
    text: Annotated[float, Field(gt=0)] = 16.0  # of the text's, before supports are asked
    doubt: Annotated[float, Field(gt=0)] = 1.0  # octaves; how far supports may move it


TwoScores = Annotated[
    GeometricFusion | ConvexFusion | SumFusion | TrustFusion, Field(discriminator="kind")
]
FusionConfig = Literal["video", "product"] | TwoScores
