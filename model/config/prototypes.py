"""Supports and class text to classes."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from model.config.root import Config, Count, Positive, Share


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
class TextGuidedPrototypes(Config):
    """Frames of supports with the text of their class in one layer (model/papers/ma_clip.md)."""

    kind: Literal["text_guided"] = "text_guided"
    heads: Count = 8
    hidden: Count = 2048
    merge_before: bool = False  # average the shots first


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphPrototypes(Config):
    """A graph over the classes and each query guides their frames (model/papers/gghm.md)."""

    kind: Literal["graph"] = "graph"
    layers: Count = 3
    hidden: Count = 256
    ratio: Positive = 1.0  # hidden width of the MLP / feature width
    joint: bool = False  # one graph for all queries, as published: reproduction alone


MEANS = MeanPrototypes()
# The default is left out of method.json, so that fingerprints from before this field stay.
PrototypesConfig = Annotated[
    MeanPrototypes | TextTokenPrototypes | TextGuidedPrototypes | GraphPrototypes,
    Field(discriminator="kind", exclude_if=lambda prototypes: prototypes == MEANS),
]
