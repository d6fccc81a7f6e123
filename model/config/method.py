"""What a method is, as one frozen value; `method.json` is a `MethodConfig` written out.

pydantic reads each strictly. Choices are tagged unions by `kind`; `model.assembly`
alone turns them into modules.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from model.config.blocks import TextBlocksConfig, VisualConfig
from model.config.fusion import FusionConfig
from model.config.matching import COSINE, MatcherConfig
from model.config.prototypes import MEANS, PrototypesConfig
from model.config.root import Config
from model.config.temporal import Temporal
from model.config.towers import BackboneConfig
from model.text import PROMPT, STAGES, prompts_of

QueryContext = Literal["none", "self", "support", "prototype", "joint"]
TemporalEmbedding = Literal["first_adapted", "input", "none"]
Align = Literal["identity", "temporal", "joint"]
Tune = Literal["frozen", "adapters", "all", "towers"]
TUNES_IMAGE: tuple[Tune, ...] = ("all", "towers")  # what learns includes the image tower
Tuned = Annotated[Tune, Field(exclude_if=lambda tune: tune == "adapters")]
AlignNorm = Annotated[bool, Field(exclude_if=lambda norm: not norm)]
TowerPart = Literal["class_token", "last_norm"]
TowerParts = Annotated[tuple[TowerPart, ...], Field(exclude_if=lambda parts: not parts)]
Projected = Annotated[bool, Field(exclude_if=lambda projected: projected)]
TextHeadKind = Literal["stages", "label"]
TextHeadChoice = Annotated[TextHeadKind, Field(exclude_if=lambda kind: kind == "stages")]
Stages = Annotated[int, Field(ge=1, le=10, exclude_if=lambda stages: stages == STAGES)]
Squash = Annotated[
    float | None, Field(ge=1, le=4, allow_inf_nan=False, exclude_if=lambda share: share is None)
]
Prompt = Annotated[str | tuple[str, ...], Field(exclude_if=lambda prompt: prompt == PROMPT)]


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodConfig(Config):
    """One few-shot method, whole."""

    backbone: BackboneConfig
    frames: int = 8  # T, sampled per clip; more than there are stages
    visual: VisualConfig | None = None  # None leaves the image tower as it is
    temporal_embedding: TemporalEmbedding = "first_adapted"
    query_context: QueryContext = "none"
    text: TextBlocksConfig | None = None  # None leaves the text tower as it is
    text_head: TextHeadChoice = (
        "stages"  # of a product: windows by stages, or the clip by its label
    )
    align: Align = "identity"
    align_norm: AlignNorm = False  # LayerNorm of what alignment adds (Task-Adapter++, SSv2-Full)
    stage_cosine: Literal["frames", "mean"] = "frames"  # per frame as released, or Eq. 16
    fusion: FusionConfig = "product"  # what has a text factor needs a text tower
    scale: float = 64.0  # of the product of cosines
    matcher: MatcherConfig = COSINE
    prototypes: PrototypesConfig = MEANS
    temporal: Temporal = None  # what happens along time above the backbone
    tune: Tuned = "adapters"  # parts above the backbone, adapters too, the image tower, both
    tower_parts: TowerParts = ()  # of a frozen tower, that learn with the adapters
    projected: Projected = True  # features in the space of text; else as wide as tokens
    stages: Stages = STAGES  # sentences that describe an action
    prompt: Prompt = PROMPT  # what the text tower reads of a stage: see `model.text.prompts`
    squash: Squash = None  # whole frames to a square this many times the size before the crop

    def squash_side(self, size: int) -> int | None:
        """Return the side of the squashed frame, for crops of this size; None keeps its shape."""
        return None if self.squash is None else int(size * self.squash)

    @property
    def texts(self) -> int:
        """Texts of a class, A: one a stage and prompt."""
        return self.stages * len(prompts_of(self.prompt))


METHOD_JSON: TypeAdapter[MethodConfig] = TypeAdapter(MethodConfig)
