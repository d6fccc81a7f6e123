"""What a method is, as frozen values; `method.json` is a `MethodConfig` written out.

pydantic reads each strictly. Choices are tagged unions by `kind`, assembled in `model.build` alone.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field, TypeAdapter

from model.text import PROMPT, STAGES

QueryContext = Literal["none", "self", "support", "prototype", "joint"]
Align = Literal["identity", "temporal", "joint"]
Tune = Literal["frozen", "adapters", "all"]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Root of all configs: unknown keys are refused when one is read."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")


# The name of a weights file that was given at loading; without one it is left out of method.json.
WeightsFile = Annotated[str | None, Field(exclude_if=lambda file: file is None)]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenClipConfig(Config):
    """A CLIP of open_clip; its weights are not in the checkpoint."""

    kind: Literal["open_clip"] = "open_clip"
    name: str  # "ViT-B-16-quickgelu"
    pretrained: str | None = None  # "openai"; None is random, or a file given at loading
    file: WeightsFile = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TimmConfig(Config):
    """A ViT of timm, no text tower; its weights are not in the checkpoint."""

    kind: Literal["timm"] = "timm"
    name: str  # "vit_tiny_patch16_224"
    pretrained: bool = True  # False is random, or a file given at loading
    file: WeightsFile = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoNetworkConfig(Config):
    """A network of transformers that sees a whole clip; its weights are not in the checkpoint."""

    name: str  # repository of the hub
    pretrained: bool = True  # False is random, or a file given at loading
    file: WeightsFile = None
    size: int  # pixels
    width: int
    depth: int
    heads: int
    patch: int = 16  # pixels
    tubelet: int = 2  # frames of a token
    mean: tuple[float, float, float] = IMAGENET_MEAN  # RGB in [0, 1]
    std: tuple[float, float, float] = IMAGENET_STD


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoMaeConfig(VideoNetworkConfig):
    """VideoMAE, learned on Kinetics-400 (arXiv 2203.12602)."""

    kind: Literal["videomae"] = "videomae"
    name: str = "MCG-NJU/videomae-base-finetuned-kinetics"
    size: int = 224
    width: int = 768
    depth: int = 12
    heads: int = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class VJepa2Config(VideoNetworkConfig):
    """The encoder of V-JEPA 2, learned without labels (arXiv 2506.09985)."""

    kind: Literal["vjepa2"] = "vjepa2"
    name: str = "facebook/vjepa2-vitl-fpc64-256"
    size: int = 256
    width: int = 1024
    depth: int = 24
    heads: int = 16


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
class CausalConfig(Config):
    """A causal video network: convolutions over space and time (packaged/causal.py)."""

    kind: Literal["causal"] = "causal"
    size: Annotated[int, Field(ge=32, multiple_of=32)] = 96  # pixels
    widths: tuple[Count, Count, Count, Count] = (32, 64, 128, 256)  # channels of each stage
    depths: tuple[Count, Count, Count, Count] = (1, 2, 4, 2)  # blocks of each stage
    spans: tuple[Count, Count, Count, Count] = (1, 3, 3, 5)  # frames that its blocks see
    maps: Count = 480  # channels of the last map
    hidden: Count = 1024
    features: Count = 384
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)  # RGB in [0, 1]
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    text: CompactTextConfig | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AimConfig(Config):
    """AIM adapters on the top blocks (arXiv 2302.03024; model/papers/aim.md)."""

    kind: Literal["aim"] = "aim"
    blocks: int = 6  # adapted blocks, counted from the output
    ratio: float = 0.25  # bottleneck width / token width
    joint_scale: float = 0.5  # weight of the adapter beside the MLP


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskConfig(Config):
    """Task-Adapter on the top blocks (model/papers/task_adapter.md)."""

    kind: Literal["task"] = "task"
    blocks: int = 6
    ratio: float = 0.25
    zero_init: bool = True  # False: the task adapter starts at random, as released


@dataclass(frozen=True, slots=True, kw_only=True)
class TedConfig(Config):
    """Temporal enhancement and difference adapters of M2-CLIP (model/papers/m2clip.md)."""

    kind: Literal["ted"] = "ted"
    blocks: int = 12
    ratio: float = 0.5  # width of the convolutions / token width
    before_attention: bool = False  # one more adapter in front of attention (`24x384`)


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderConfig(Config):
    """Order adapters on the top text blocks (Task-Adapter++; model/papers/task_adapter.md)."""

    blocks: int = 8
    ratio: float = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvolutionConfig(Config):
    """A residual convolution along time over frame features (M2-CLIP's t_adapter)."""

    kind: Literal["convolution"] = "convolution"
    ratio: float = 0.5  # width of the convolution / feature width


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanPrototypes(Config):
    """Mean frame features of a class's shots."""

    kind: Literal["mean"] = "mean"


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTokenPrototypes(Config):
    """Frames of supports attend to the text of their class (model/papers/clip_fsar.md)."""

    kind: Literal["text_token"] = "text_token"
    depth: Count = 1  # layers of the transformer
    heads: Count = 8
    hidden: Count = 2048
    dropout: Share = 0.2  # after attention
    mlp_dropout: Share = 0.05
    merge_before: bool = False  # average the shots first, as the released 5-shot files do


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


@dataclass(frozen=True, slots=True, kw_only=True)
class GeometricFusion(Config):
    """Weighted geometric mean of two softmaxes (CLIP-FSAR; model/papers/clip_fsar.md)."""

    kind: Literal["geometric"] = "geometric"
    text_share: Annotated[float, Field(ge=0, le=1)] = 0.9  # exponent of its softmax; by val
    softness: Annotated[float, Field(gt=0)] = 8.0  # divides distances


VideoConfig = VideoMaeConfig | VJepa2Config
PackagedConfig = CompactConfig | CausalConfig  # weights are in the checkpoint
WholeClipConfig = VideoConfig | CausalConfig  # networks that see a whole clip
LibraryConfig = OpenClipConfig | TimmConfig | VideoConfig  # weights are not in the checkpoint
BackboneConfig = Annotated[LibraryConfig | PackagedConfig, Field(discriminator="kind")]
VisualConfig = Annotated[AimConfig | TaskConfig | TedConfig, Field(discriminator="kind")]
TemporalConfig = ConvolutionConfig
FusionConfig = Literal["video", "product"] | GeometricFusion

# Defaults are left out of method.json, so that fingerprints from before these fields stay.
MatcherConfig = Annotated[
    PrototypeMatcher | FramePairMatcher | BiMhmMatcher | OtamMatcher | TrxMatcher,
    Field(discriminator="kind", exclude_if=lambda matcher: matcher == PrototypeMatcher()),
]
PrototypesConfig = Annotated[
    MeanPrototypes | TextTokenPrototypes,
    Field(discriminator="kind", exclude_if=lambda prototypes: prototypes == MeanPrototypes()),
]
Temporal = Annotated[TemporalConfig | None, Field(exclude_if=lambda temporal: temporal is None)]
Tuned = Annotated[Tune, Field(exclude_if=lambda tune: tune == "adapters")]
Stages = Annotated[int, Field(ge=1, le=10, exclude_if=lambda stages: stages == STAGES)]
Prompt = Annotated[str, Field(exclude_if=lambda prompt: prompt == PROMPT)]


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodConfig(Config):
    """One few-shot method, whole."""

    backbone: BackboneConfig
    frames: int = 8  # T, sampled per clip; more than there are stages
    visual: VisualConfig | None = None  # None leaves the image tower as it is
    temporal_embedding: Literal["first_adapted", "input"] = "first_adapted"
    query_context: QueryContext = "none"
    text: OrderConfig | None = None  # None leaves the text tower as it is
    align: Align = "identity"
    stage_cosine: Literal["frames", "mean"] = "frames"  # per frame as released, or Eq. 16
    fusion: FusionConfig = "product"  # what has a text factor needs a text tower
    scale: float = 64.0  # of the product of cosines
    matcher: MatcherConfig = PrototypeMatcher()
    prototypes: PrototypesConfig = MeanPrototypes()
    temporal: Temporal = None  # what happens along time above the backbone
    tune: Tuned = "adapters"  # what learns: parts above the backbone, adapters too, or all
    stages: Stages = STAGES  # sentences that describe an action
    prompt: Prompt = PROMPT  # what the text tower reads of a stage: `{label}`, `{stage}`


METHOD_JSON: TypeAdapter[MethodConfig] = TypeAdapter(MethodConfig)
