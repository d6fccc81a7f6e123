"""Which method is trained, as a command line or a matrix chooses it; nothing is built here."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from model.config.matching import MatcherConfig
from model.config.method import Align, QueryContext, TextHeadKind, Tune
from model.methods import METHODS

# Every matcher of the core with its own defaults, by the name that it has in method.json.
MATCHERS: dict[str, MatcherConfig] = {
    matcher.kind: matcher
    for matcher in (config() for config in get_args(get_args(MatcherConfig)[0]))
}

# Run folders of before these fields were there belong to methods that do not use them.
LATER_FIELDS = ("tune", "text", "align", "align_norm", "stage_cosine", "zero_init", "squash")


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodChanges:
    """What a method changes of its preset; None keeps the preset's."""

    blocks: int | None = None  # adapted visual blocks
    text_blocks: int | None = None  # adapted text blocks
    ratio: float | None = None  # hidden width of visual adapters / token width
    query_context: QueryContext | None = None
    frames: int | None = None  # T
    matcher: str | None = None  # of MATCHERS
    at_input: bool = False  # temporal embedding at the input, as released
    tune: Tune | None = None  # what learns
    text: TextHeadKind | None = None  # what of a class its text is
    align: Align | None = None  # whom frames are aligned with
    align_norm: bool | None = None  # LayerNorm of the alignment
    stage_cosine: Literal["frames", "mean"] | None = None
    zero_init: bool | None = None  # False: the task adapter starts at random, as released
    squash: float | None = None  # whole frames to squares this many times the size, then cropped


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodChoice(MethodChanges):
    """Which preset, on which backbone, with what changed."""

    preset: str
    backbone: str  # as KSHOT_CHECKPOINT: compact, timm:NAME, open_clip:NAME@WEIGHTS
    backbone_weights: Path | None = None

    def claim(self) -> dict[str, object]:
        """Return what a run folder belongs to: no path of this machine, and the matcher's name."""
        weights = self.backbone_weights
        own = {"backbone_weights": weights.name if weights else None}
        if self.matcher is None and self.preset in METHODS:
            own["matcher"] = METHODS[self.preset].matcher.kind
        held = asdict(self) | own
        unused = [name for name in LATER_FIELDS if held[name] is None]
        return {name: value for name, value in held.items() if name not in unused}
