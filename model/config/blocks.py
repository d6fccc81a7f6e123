"""Adapters in the blocks of a tower."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from model.config.root import Config, Count


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
class MultimodalConfig(Config):
    """Blocks in which supports see the text of their class (MA-CLIP; model/papers/ma_clip.md)."""

    kind: Literal["multimodal"] = "multimodal"
    blocks: int = 12
    ratio: float = 0.25
    joint_scale: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class D2stConfig(Config):
    """D2ST-Adapter behind blocks of a ViT, or stages of a ResNet (model/papers/d2st.md)."""

    kind: Literal["d2st"] = "d2st"
    blocks: int = 12  # a ResNet has 4 stages
    ratio: float = 0.25
    heads: Count = 4  # on a ViT; stages of a ResNet have 1, 2, 4 and 8


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderConfig(Config):
    """Order adapters on the top text blocks (Task-Adapter++; model/papers/task_adapter.md)."""

    blocks: int = 8
    ratio: float = 0.25


VisualConfig = Annotated[
    AimConfig | TaskConfig | TedConfig | D2stConfig | MultimodalConfig, Field(discriminator="kind")
]
