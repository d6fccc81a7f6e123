"""Which image and text towers a method stands on."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, PlainSerializer

from model.config.root import Config, Count

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# The name of a weights file that was given at loading; without one it is left out of method.json.
WeightsFile = Annotated[str | None, Field(exclude_if=lambda file: file is None)]


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerConfig(Config):
    """What every backbone declares."""

    family: ClassVar[str]  # whose default calibration it has

    def instants(self, frames: int) -> int:
        """Return how many features a clip of so many frames has."""
        return frames


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenClipConfig(TowerConfig):
    """A CLIP of open_clip; its weights are not in the checkpoint."""

    family: ClassVar[str] = "open_clip's networks"

    kind: Literal["open_clip"] = "open_clip"
    name: str  # "ViT-B-16-quickgelu"
    pretrained: str | None = None  # "openai"; None is random, or a file given at loading
    file: WeightsFile = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TimmConfig(TowerConfig):
    """A ViT or ResNet of timm, no text tower; its weights are not in the checkpoint."""

    family: ClassVar[str] = "timm's networks"

    kind: Literal["timm"] = "timm"
    name: str  # "vit_tiny_patch16_224"
    pretrained: bool = True  # False is random, or a file given at loading
    file: WeightsFile = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoNetworkConfig(TowerConfig):
    """A network of transformers that sees a whole clip; its weights are not in the checkpoint."""

    family: ClassVar[str] = "video networks"

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

    def instants(self, frames: int) -> int:
        """Return how many features a clip of so many frames has."""
        return frames // self.tubelet


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


def _split(words: object) -> object:
    return tuple(words.split(" ")) if isinstance(words, str) else words


def _joined(words: tuple[str, ...]) -> str | tuple[str, ...]:
    return " ".join(words) if len(words) > MANY_WORDS else words


MANY_WORDS = 1000  # method.json holds more of them as one text
Words = Annotated[tuple[str, ...], BeforeValidator(_split), PlainSerializer(_joined)]


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactTextConfig(Config):
    """The compact text tower: word level, its vocabulary in the config."""

    words: Words  # lower case; every other word is unknown to it
    context: int = 32  # tokens, start and end included
    width: int = 128
    layers: int = 2
    heads: int = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactConfig(TowerConfig):
    """The packaged compact towers: their weights are in the checkpoint."""

    family: ClassVar[str] = "compact networks"

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
class CausalBlockConfig(Config):
    """A block of a causal video network."""

    inner: Count  # channels inside
    width: Count  # channels after it
    kernel: Annotated[int, Field(ge=1, le=7)] = 3  # cells of a side that it sees; odd
    stride: Annotated[int, Field(ge=1, le=2)] = 1
    span: Count = 3  # frames that it sees, its own included


CAUSAL_BLOCKS = tuple(
    CausalBlockConfig(inner=inner, width=width, kernel=kernel, stride=stride, span=span)
    for inner, width, kernel, stride, span in (
        (32, 8, 5, 2, 1),
        (96, 32, 3, 2, 3), (96, 32, 3, 1, 3), (96, 32, 3, 1, 3),
        (192, 56, 3, 2, 5), (128, 56, 3, 1, 3), (192, 56, 3, 1, 3),
        (192, 56, 3, 1, 5), (192, 56, 3, 1, 3), (192, 56, 3, 1, 3), (192, 56, 3, 1, 3),
        (384, 104, 3, 2, 5), (288, 104, 5, 1, 1), (288, 104, 5, 1, 1), (352, 104, 5, 1, 1),
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class CausalConfig(TowerConfig):
    """A causal video network: convolutions over space and time (packaged/causal.py)."""

    family: ClassVar[str] = "compact networks"

    kind: Literal["causal"] = "causal"
    size: Annotated[int, Field(ge=32, multiple_of=32)] = 160  # pixels
    stem: Count = 8  # channels of the first convolution
    blocks: tuple[CausalBlockConfig, ...] = CAUSAL_BLOCKS
    maps: Count = 480  # channels of the last map
    hidden: Count = 1024
    features: Count = 384
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)  # RGB in [0, 1]
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    text: CompactTextConfig | None = None


VideoConfig = VideoMaeConfig | VJepa2Config
PackagedConfig = CompactConfig | CausalConfig  # weights are in the checkpoint
WholeClipConfig = VideoConfig | CausalConfig  # networks that see a whole clip
LibraryConfig = OpenClipConfig | TimmConfig | VideoConfig  # weights are not in the checkpoint
BackboneConfig = Annotated[LibraryConfig | PackagedConfig, Field(discriminator="kind")]
