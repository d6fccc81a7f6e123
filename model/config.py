"""What a method is, as frozen values; `method.json` is a `MethodConfig` written out.

Every config is a dataclass that pydantic reads strictly: an unknown key is an error. Choices are
tagged unions by `kind`, assembled in `model.build` alone.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field, TypeAdapter

from model.text import PROMPT, STAGES

QueryContext = Literal["none", "self", "support", "prototype", "joint"]
Align = Literal["identity", "temporal", "joint"]

SERVED_CONTEXTS: tuple[QueryContext, ...] = ("none", "self", "support", "prototype")
SERVED_ALIGNS: tuple[Align, ...] = ("identity", "temporal")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Root of all configs: unknown keys are refused when one is read."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenClipConfig(Config):
    """A CLIP of open_clip; its weights are not in the checkpoint."""

    kind: Literal["open_clip"] = "open_clip"
    name: str  # "ViT-B-16-quickgelu"
    pretrained: str | None = None  # "openai"; None is random, or a file given at loading


@dataclass(frozen=True, slots=True, kw_only=True)
class TimmConfig(Config):
    """A ViT of timm, no text tower; its weights are not in the checkpoint."""

    kind: Literal["timm"] = "timm"
    name: str  # "vit_tiny_patch16_224"
    pretrained: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactTextConfig(Config):
    """The compact text tower: word level, its vocabulary in the config."""

    words: tuple[str, ...]  # lower case; every other word is unknown to it
    context: int = 32  # tokens, start and end included
    width: int = 128
    layers: int = 2
    heads: int = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactConfig(Config):
    """The packaged compact towers: their weights are in the checkpoint."""

    kind: Literal["compact"] = "compact"
    size: int = 224  # pixels
    patch: int = 16  # pixels
    width: int = 192
    depth: int = 6
    heads: int = 3
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)  # RGB in [0, 1]
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    text: CompactTextConfig | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AimConfig(Config):
    """AIM adapters on the top blocks (arXiv 2302.03024; specs/methods-1, section 4)."""

    kind: Literal["aim"] = "aim"
    blocks: int = 6  # adapted blocks, counted from the output
    ratio: float = 0.25  # bottleneck width / token width
    joint_scale: float = 0.5  # weight of the adapter beside the MLP


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskConfig(Config):
    """Task-Adapter on the top blocks (specs/methods-1, section 5.1)."""

    kind: Literal["task"] = "task"
    blocks: int = 6
    ratio: float = 0.25
    zero_init: bool = True  # False: the task adapter starts at random, as released


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderConfig(Config):
    """Order adapters on the top text blocks (Task-Adapter++; specs/methods-1, section 6.3)."""

    blocks: int = 8
    ratio: float = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class PrototypeMatcher(Config):
    """Cosine of frame means (specs/methods-1, section 8.1 a)."""

    kind: Literal["prototype"] = "prototype"


@dataclass(frozen=True, slots=True, kw_only=True)
class FramePairMatcher(Config):
    """Mean cosine of all pairs of frames (specs/methods-1, section 8.1 b)."""

    kind: Literal["frame_pairs"] = "frame_pairs"


@dataclass(frozen=True, slots=True, kw_only=True)
class DistanceMatcher(Config):
    """Root of matchers by distance: logits are negative distances, without `scale` and text.

    A distance has no bound, so it is no factor of a product: `fusion` must be `video`.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class BiMhmMatcher(DistanceMatcher):
    """Bidirectional mean Hausdorff metric (HyRSM; specs/methods-1, section 8.3)."""

    kind: Literal["bi_mhm"] = "bi_mhm"


@dataclass(frozen=True, slots=True, kw_only=True)
class OtamMatcher(DistanceMatcher):
    """Soft temporal alignment in both directions (OTAM; specs/methods-1, section 8.2)."""

    kind: Literal["otam"] = "otam"
    smoothing: float = 0.1  # lambda; CLIP-FSAR and D2ST use 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class TrxMatcher(DistanceMatcher):
    """Attention between ordered tuples of frames, trained (TRX; specs/methods-1, section 8.4)."""

    kind: Literal["trx"] = "trx"
    cardinalities: tuple[int, ...] = (2, 3)  # frames of a tuple
    width: int = 1152  # of keys and values
    dropout: float = 0.1


BackboneConfig = Annotated[OpenClipConfig | TimmConfig | CompactConfig, Field(discriminator="kind")]
VisualConfig = Annotated[AimConfig | TaskConfig, Field(discriminator="kind")]
# The default is left out of method.json, so that fingerprints from before matchers stay.
MatcherConfig = Annotated[
    PrototypeMatcher | FramePairMatcher | BiMhmMatcher | OtamMatcher | TrxMatcher,
    Field(discriminator="kind", exclude_if=lambda matcher: matcher == PrototypeMatcher()),
]


# Defaults are left out of method.json, so that fingerprints from before these fields stay.
Stages = Annotated[int, Field(ge=1, le=10, exclude_if=lambda stages: stages == STAGES)]
Prompt = Annotated[str, Field(exclude_if=lambda prompt: prompt == PROMPT)]


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodConfig(Config):
    """One few-shot method, whole."""

    backbone: BackboneConfig
    frames: int = 8  # T, sampled per clip; at least 4
    visual: VisualConfig | None = None  # None leaves the image tower frozen
    temporal_embedding: Literal["first_adapted", "input"] = "first_adapted"
    query_context: QueryContext = "none"
    text: OrderConfig | None = None  # None leaves the text tower frozen
    align: Align = "identity"
    stage_cosine: Literal["frames", "mean"] = "frames"  # per frame as released, or Eq. 16
    fusion: Literal["video", "product"] = "product"  # the text factor needs a text tower
    scale: float = 64.0  # of the product of cosines
    matcher: MatcherConfig = PrototypeMatcher()
    stages: Stages = STAGES  # sentences that describe an action
    prompt: Prompt = PROMPT  # what the text tower reads of a stage: `{label}`, `{stage}`


METHOD_JSON: TypeAdapter[MethodConfig] = TypeAdapter(MethodConfig)
