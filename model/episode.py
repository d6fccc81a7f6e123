"""The values of an episode: what is kept of a task's supports, and the scores of its queries.

Nothing here holds weights. What belongs to a task is handed in and out as a value.

Dimensions: S Q clips, K shots of a class, N classes, A stages, T frames, E feature width, P sites,
H heads, M memory entries, W width of a head.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from model.errors import EpisodeError
from model.fusion import AS_THEY_ARE, TaskCalibration
from model.matching.trust import TextTrust


@dataclass(frozen=True, slots=True)
class Memory:
    """What a query may attend to in one adapted block, beside itself."""

    keys_PHMW: Tensor
    values_PHMW: Tensor

    @property
    def bytes(self) -> int:
        """Memory held by the keys and values."""
        return self.keys_PHMW.nbytes + self.values_PHMW.nbytes


@dataclass(frozen=True, slots=True)
class ClassSet:
    """The classes of a task, as a matcher compares queries with them.

    Args:
        prototype_NTE: One sequence of frame features a class.
        counts: Support clips of each class.
        shots: Frame features [K, T, E] of each class's support clips, for a matcher that reads
            them; else empty.
        centre_NE: What `model.matching.cosine` subtracts before it compares; None is nothing.
        trust: In the text of these classes, where the fusion asks supports; else None.
    """

    prototype_NTE: Tensor
    counts: tuple[int, ...]
    shots: tuple[Tensor, ...] = ()
    centre_NE: Tensor | None = None
    trust: TextTrust | None = None

    @property
    def bytes(self) -> int:
        """Memory held by its tensors."""
        centre = 0 if self.centre_NE is None else self.centre_NE.nbytes
        shots = sum(shots_KTE.nbytes for shots_KTE in self.shots)
        return self.prototype_NTE.nbytes + shots + centre


@dataclass(frozen=True, slots=True)
class SupportClips:
    """What the clips of a task were encoded to, before they became classes.

    Args:
        features_STE: Frame features of each clip.
        classes: Class index of each clip.
        names: What whoever registered the clips calls them; empty where nobody said.
    """

    features_STE: Tensor
    classes: tuple[int, ...]
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, weakref_slot=True)
class EncodedSupport:
    """All that queries of a task need: derived from its pictures, and rebuilt from them.

    Args:
        classes: What queries are compared with.
        memories: What queries attend to in each adapted block; None where they see only themselves.
        text_NAE: Text features of the classes, or None to score by video alone.
        fingerprint: Of the weights that made it.
        text_inside: Whether they were encoded with class text: it is in their features, or
            they said how much it counts.
        by_video, by_text: Calibration of scores by video alone, and of those with text.
        clips: Its clips one by one, for other tasks that have some of them and for diagnosis.
    """

    classes: ClassSet
    memories: tuple[Memory | None, ...]
    text_NAE: Tensor | None
    fingerprint: str
    text_inside: bool = False
    by_video: TaskCalibration = AS_THEY_ARE
    by_text: TaskCalibration = AS_THEY_ARE
    clips: SupportClips | None = None

    def __post_init__(self) -> None:
        check_text(self.text_NAE, len(self.counts))

    @property
    def counts(self) -> tuple[int, ...]:
        """Support clips of each class."""
        return self.classes.counts

    @property
    def calibration(self) -> TaskCalibration:
        """What turns its scores into probabilities."""
        return self.by_video if self.text_NAE is None else self.by_text

    @property
    def bytes(self) -> int:
        """Memory held by its tensors."""
        text = 0 if self.text_NAE is None else self.text_NAE.nbytes
        memories = sum(memory.bytes for memory in self.memories if memory is not None)
        clips = 0 if self.clips is None else self.clips.features_STE.nbytes
        return self.classes.bytes + memories + text + clips

    def named(self, names: Sequence[str]) -> "EncodedSupport":
        """Return the same supports whose clips have names, in order."""
        assert self.clips is not None
        return replace(self, clips=replace(self.clips, names=tuple(names)))

    def with_text(self, text_NAE: Tensor | None) -> "EncodedSupport":
        """Return the same supports with other text.

        Raises:
            EpisodeError: They were encoded with the old text.
        """
        if self.text_inside:
            raise EpisodeError(
                "These supports were encoded with the text of their classes; "
                "encode the supports again with the new text."
            )
        return replace(self, text_NAE=text_NAE)


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of queries against classes; every tensor starts [query, class]."""

    video_QN: Tensor
    text_QN: Tensor | None
    stages_QNA: Tensor | None
    logits_QN: Tensor
    near_QN: Tensor  # how near each query is to each class, by `model.matching.cosine`

    def to(self, device: torch.device, *, non_blocking: bool = False) -> "Scores":
        """Return the same scores on another device."""

        def moved(scores: Tensor | None) -> Any:  # noqa: ANN401  as it came: a tensor or None
            return None if scores is None else scores.detach().to(device, non_blocking=non_blocking)

        return Scores(*(moved(getattr(self, each.name)) for each in fields(self)))


@dataclass(frozen=True, slots=True)
class MatchScores:
    """One query against the classes of its task, as plain numbers."""

    video_N: list[float]
    text_N: list[float] | None
    stages_NA: list[list[float]] | None
    logits_N: list[float]
    nearest: float  # the best of the task's classes


@dataclass(frozen=True, slots=True)
class Scored:
    """Queries that were scored together.

    Args:
        places: Where each query stands in the batch.
        columns: Which classes are the query's own task's.
        scores: Of these queries, against the classes of all their tasks.
    """

    places: tuple[int, ...]
    columns: tuple[slice, ...]
    scores: Scores

    def to(self, device: torch.device, *, non_blocking: bool = False) -> "Scored":
        """Return the same on another device."""
        return replace(self, scores=self.scores.to(device, non_blocking=non_blocking))


def plain(scored: Sequence[Scored]) -> list[MatchScores]:
    """Turn scores into numbers, in the order of the batch; waits for the device."""
    found: dict[int, MatchScores] = {}
    for group in scored:
        scores = group.scores.to(torch.device("cpu"))
        video_QN, logits_QN = scores.video_QN.numpy(), scores.logits_QN.numpy()
        near_QN = scores.near_QN.numpy()
        text_QN = None if scores.text_QN is None else scores.text_QN.numpy()
        stages_QNA = None if scores.stages_QNA is None else scores.stages_QNA.numpy()
        for row, (place, own) in enumerate(zip(group.places, group.columns, strict=True)):
            found[place] = MatchScores(
                video_N=video_QN[row, own].tolist(),
                text_N=None if text_QN is None else text_QN[row, own].tolist(),
                stages_NA=None if stages_QNA is None else stages_QNA[row, own].tolist(),
                logits_N=logits_QN[row, own].tolist(),
                nearest=float(near_QN[row, own].max()),
            )
    return [found[place] for place in range(len(found))]


def check_text(text_NAE: Tensor | None, ways: int) -> None:
    """Refuse class text that is not one for each class.

    Raises:
        EpisodeError: It is not.
    """
    if text_NAE is not None and len(text_NAE) != ways:
        raise EpisodeError(
            f"Text for {len(text_NAE)} classes came with supports of {ways}; "
            "give text for every class."
        )


def check_supports(supports: Sequence[EncodedSupport], queries: int, fingerprint: str) -> None:
    """Refuse support sets that are not one for each query, made by the same weights.

    Raises:
        EpisodeError: They are not.
    """
    if queries != len(supports):
        raise EpisodeError(
            f"{queries} queries came with {len(supports)} support sets; give one for each."
        )
    for support in supports:
        if support.fingerprint != fingerprint:
            raise EpisodeError(
                f"The supports were encoded by weights {support.fingerprint[:12]}, "
                f"not {fingerprint[:12]}; encode them again."
            )


def checked_classes(classes: Sequence[int], clips: int) -> Tensor:
    """Return class indices as a tensor.

    Args:
        classes: Class index of each clip; 0 .. N-1, every class present, in any order.
        clips: How many clips there are.

    Raises:
        EpisodeError: Other lengths, fewer than two classes, or a class without a clip.
    """
    ways = max(classes, default=-1) + 1
    if len(classes) != clips:
        raise EpisodeError(f"{clips} clips came with {len(classes)} classes; give one for each.")
    if ways < 2:
        raise EpisodeError(f"An episode needs two classes or more, not {ways}; add a label.")
    missing = sorted(set(range(ways)) - set(classes))
    if missing or min(classes) < 0:
        raise EpisodeError(
            f"Class indices must cover 0 to {ways - 1}; without a clip: {missing}; add clips."
        )
    return torch.tensor(list(classes))
