"""What the queries of a task attend to: as much as its share of the support cache holds.

The choice depends on the task and the settings alone, so a rebuild, or another replica with the
same settings, chooses the same and scores are the same.

Dimensions: N classes, A stages, T frames, E feature width.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from model.config import QueryContext
from model.recognizer import EncodedSupport

# What a method's own context may be exchanged for, dearest first: each has less to keep.
CHEAPER: dict[QueryContext, tuple[QueryContext, ...]] = {
    "support": ("support", "prototype", "self"),
    "prototype": ("prototype", "self"),
}
PROBE_CLASSES = (0, 0, 1)  # clips and classes differ, so that one probe tells them apart


@dataclass(frozen=True, slots=True)
class SupportSizes:
    """Bytes of encoded supports, by what they grow with."""

    entry: int  # what queries attend to: a clip, or the mean of a class
    class_: int  # prototype and text
    clip: int  # where the matcher reads shots

    def bytes(self, context: QueryContext, classes: int, clips: int) -> int:
        """Return the bytes of a task's supports."""
        return (
            entries(context, classes, clips) * self.entry
            + classes * self.class_
            + clips * self.clip
        )


@dataclass(frozen=True, slots=True)
class ContextChoice:
    """Chooses the context of tasks.

    Args:
        own: The method's.
        sizes: What supports take.
        limit_bytes: Most that one task may take; one without memory is served whatever it takes.
    """

    own: QueryContext
    sizes: SupportSizes
    limit_bytes: float

    def of(self, classes: int, clips: int) -> QueryContext:
        """Choose the dearest context that fits."""
        choices = CHEAPER.get(self.own, (self.own,))
        fitting = (
            context
            for context in choices
            if self.sizes.bytes(context, classes, clips) <= self.limit_bytes
        )
        return next(fitting, choices[-1])


def entries(context: QueryContext, classes: int, clips: int) -> int:
    """Count what a query may attend to beside itself."""
    match context:
        case "support":
            return clips
        case "prototype":
            return classes
        case "self" | "none" | "joint":
            return 0


def measured_sizes(probe: EncodedSupport, context: QueryContext, has_text: bool) -> SupportSizes:
    """Read the sizes off the encoded supports of `PROBE_CLASSES`, text being of the same width."""
    classes, clips = len(set(PROBE_CLASSES)), len(PROBE_CLASSES)
    shots = sum(shots_KTE.nbytes for shots_KTE in probe.shots)
    text_AE = 3 * 4 * probe.prototype_NTE.shape[-1] if has_text else 0
    return SupportSizes(
        entry=probe.context.bytes // max(1, entries(context, classes, clips)),
        class_=probe.prototype_NTE.nbytes // classes + text_AE,
        clip=shots // clips,
    )


def limit_of(budget_bytes: int, share: float) -> float:
    """Return what one task may take of a budget; a cache of nothing limits nothing."""
    return share * budget_bytes if budget_bytes else math.inf


def clips_of(classes: Sequence[int]) -> tuple[int, int]:
    """Return the number of classes and of clips."""
    return len(set(classes)), len(classes)
