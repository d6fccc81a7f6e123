"""Recognisers read on the same episodes of one split, and the tables of what they answered."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from model.config import QueryContext
from model.recognizer import Recognizer
from model.text import StageTexts
from training.data.episodes import Episode
from training.evaluation.accuracy import SeedAccuracy, Tally, measure
from training.evaluation.layouts import Layout
from training.evaluation.scoring import EpisodeScorer
from training.features.tokens import TokenSources
from training.meta.variants import as_evaluated, is_transductive, variants


@dataclass(frozen=True, slots=True)
class Kind:
    """What readings have in common that differ in the seed of the training alone."""

    method: str
    query_context: QueryContext
    transductive: bool  # whether answers depend on other queries of the episode
    layout: Layout

    def __str__(self) -> str:
        joint = ", transductive" if self.transductive else ""
        ways, shots = self.layout.ways, self.layout.shots
        return f"{ways}-way {shots}-shot, query context {self.query_context}{joint}"


@dataclass(frozen=True, slots=True)
class Reading:
    """One checkpoint's answers to the episodes of one layout."""

    checkpoint: str
    kind: Kind
    tally: Tally
    labels_with_text: int  # labels whose stage texts could take part
    trained: bool  # else its adapters were left out, which changes no answer


@dataclass(frozen=True, slots=True)
class Examination:
    """What all recognisers are asked, and with what.

    Args:
        layouts: Episodes of each layout.
        labels: Of the split.
        sources: Tokens of its clips.
        stages: Stage texts of its labels; None leaves text out.
    """

    layouts: Mapping[Layout, Sequence[Episode]]
    labels: Sequence[str]
    sources: TokenSources
    stages: Mapping[str, StageTexts] | None

    def read(
        self,
        recognizer: Recognizer,
        contexts: Sequence[QueryContext] = (),
        *,
        checkpoint: str,
        method: str,
    ) -> Iterator[Reading]:
        """Ask a recogniser as it is, then its weights under other contexts.

        Args:
            recognizer: Asked without its adapters where they are untrained.
            contexts: Others than its own.
            checkpoint: Names the weights.
            method: Names what seeds have in common.

        Raises:
            InputError: contexts that change nothing, or a trunk cache that cannot be used.
        """
        for variant in variants(recognizer, contexts):
            asked, context = as_evaluated(variant), variant.config.query_context
            scorer = EpisodeScorer(
                asked,
                self.sources.of(asked),
                len(self.sources.clips),
                stages=self.stages,
                half=self.sources.half,
            )
            for layout, episodes in self.layouts.items():
                kind = Kind(method, context, is_transductive(variant), layout)
                tally = measure(scorer, self.labels, episodes, name=f"{checkpoint} {kind}")
                yield Reading(checkpoint, kind, tally, len(scorer.text), variant.trained)


def seeds_of(readings: Iterable[Reading]) -> dict[Kind, list[Reading]]:
    """Gather the readings of each kind, one a seed."""
    found: dict[Kind, list[Reading]] = defaultdict(list)
    for reading in readings:
        found[reading.kind].append(reading)
    return dict(found)


def row(reading: Reading) -> dict[str, object]:
    """Write a reading for the JSON document."""
    return {
        "checkpoint": reading.checkpoint,
        **_layout(reading.kind),
        **_accuracy(reading.tally),
        "labels_with_text": reading.labels_with_text,
        "trained": reading.trained,
        **_detail(reading.tally),
    }


def seeds_row(kind: Kind, readings: Sequence[Reading]) -> dict[str, object]:
    """Write the seeds of one kind for the JSON document: their mean, and two intervals."""
    tally = Tally.over_seeds([reading.tally for reading in readings])
    over_seeds = over(readings)
    return {
        "checkpoints": [reading.checkpoint for reading in readings],
        **_layout(kind),
        "seeds": over_seeds.seeds,
        "accuracy": rounded(over_seeds.mean),
        "interval_seeds": rounded(over_seeds.interval),
        "interval_episodes": rounded(tally.accuracy.interval),
        **_detail(tally),
    }


def over(readings: Sequence[Reading]) -> SeedAccuracy:
    """Summarise readings of several seeds."""
    return SeedAccuracy.of([reading.tally.accuracy.mean for reading in readings])


def rounded(value: float, digits: int = 2) -> float | None:
    """Round for JSON, which knows no NaN."""
    return round(value, digits) if math.isfinite(value) else None


def _layout(kind: Kind) -> dict[str, object]:
    return {
        "ways": kind.layout.ways,
        "shots": kind.layout.shots,
        "query_context": kind.query_context,
        "transductive": kind.transductive,
    }


def _accuracy(tally: Tally) -> dict[str, object]:
    found = tally.accuracy
    return {
        "accuracy": rounded(found.mean),
        "interval": rounded(found.interval),
        "episodes": found.episodes,
    }


def _detail(tally: Tally) -> dict[str, object]:
    return {
        "by_class": {label: rounded(share, 1) for label, share in tally.by_class.items()},
        "confusion": [[rounded(share, 1) for share in row] for row in tally.confusion.tolist()],
    }
