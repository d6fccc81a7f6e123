"""Recognisers asked the same episodes of one split, and what each answered."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from model.checkpoint import load_recognizer
from model.config.method import MethodConfig, QueryContext
from model.recognizer import Recognizer
from model.text import StageTexts
from training.data.datasets import LabelledClip
from training.data.episodes import Episode, EpisodePlan, EpisodeSampler
from training.errors import InputError
from training.evaluation.scoring import EpisodeScorer
from training.evaluation.tallies import Tally, measure
from training.evaluation.variants import as_evaluated, variants
from training.features.tokens import TokenSources
from training.meta.choice import MethodChoice
from training.meta.methods import open_method


@dataclass(frozen=True, slots=True, order=True)
class Layout:
    """N ways and K shots; K is that of the class with most supports."""

    ways: int
    shots: int


def draw_layouts(
    clips: Sequence[LabelledClip],
    layouts: Iterable[Layout],
    *,
    queries: int,
    episodes: int,
    seed: int,
) -> dict[Layout, list[Episode]]:
    """Draw episodes 0 .. `episodes` - 1 of a seed for each layout.

    Raises:
        InputError: sizes that no episode has, or that the clips do not allow.
    """
    wanted = list(layouts)
    if episodes < 1 or seed < 0:
        raise InputError(
            f"{episodes} episodes of seed {seed} cannot be drawn; give 1 or more, and a seed of "
            "0 or more."
        )
    for layout in wanted:
        if layout.ways < 2:
            raise InputError(f"{layout.ways}-way episodes leave nothing to tell apart; give 2.")
    samplers = {
        layout: EpisodeSampler(clips, EpisodePlan(layout.ways, layout.shots, queries), seed)
        for layout in wanted
    }
    return {
        layout: [sampler.draw(number) for number in range(episodes)]
        for layout, sampler in samplers.items()
    }


def by_layout(episodes: Iterable[Episode]) -> dict[Layout, list[Episode]]:
    """Sort episodes by their layout, each layout in its own order."""
    found: dict[Layout, list[Episode]] = defaultdict(list)
    for episode in episodes:
        shots = max(Counter(episode.support_classes).values())
        found[Layout(len(episode.labels), shots)].append(episode)
    return dict(found)


@dataclass(frozen=True, slots=True)
class Setting:
    """What results have in common that differ in the seed of the training alone."""

    method: str
    query_context: QueryContext
    transductive: bool  # whether answers depend on other queries of the episode
    layout: Layout

    def __str__(self) -> str:
        joint = ", transductive" if self.transductive else ""
        ways, shots = self.layout.ways, self.layout.shots
        return f"{ways}-way {shots}-shot, query context {self.query_context}{joint}"


@dataclass(frozen=True, slots=True)
class Result:
    """One checkpoint's answers to the episodes of one layout."""

    checkpoint: str
    setting: Setting
    tally: Tally
    labels_with_text: int  # labels whose stage texts could take part
    trained: bool  # else its adapters were left out, which changes no answer
    revision: str  # fingerprint of the weights


@dataclass(frozen=True, slots=True)
class Examination:
    """What all recognisers are asked, and with what.

    Args:
        split: Of the data, for people.
        layouts: Episodes of each layout.
        labels: Of the split.
        sources: Tokens of its clips.
        stages: Gives stage texts of its labels for a number of stages; None leaves text out.
        data: Name of the data set, for people.
    """

    split: str
    layouts: Mapping[Layout, Sequence[Episode]]
    labels: Sequence[str]
    sources: TokenSources
    stages: Callable[[int], Mapping[str, StageTexts] | None] | None
    data: str = ""

    def ask(
        self,
        recognizer: Recognizer,
        contexts: Sequence[QueryContext] = (),
        *,
        checkpoint: str,
        method: str,
    ) -> Iterator[Result]:
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
                stages=None if self.stages is None else self.stages(asked.config.stages),
                half=self.sources.half,
            )
            for layout, episodes in self.layouts.items():
                setting = Setting(method, context, variant.transductive, layout)
                tally = measure(scorer, self.labels, episodes, name=f"{checkpoint} {setting}")
                yield Result(
                    checkpoint,
                    setting,
                    tally,
                    len(scorer.text),
                    variant.trained,
                    recognizer.fingerprint,
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A recogniser to ask.

    Args:
        name: Names the weights.
        method: Names what the seeds of one method have in common.
        source: A checkpoint, as KSHOT_CHECKPOINT, or a method before its training.
        weights: File of the backbone's weights, where a checkpoint does not hold them.
    """

    name: str
    method: str
    source: str | MethodChoice
    weights: Path | None = None

    def open(self) -> Recognizer:
        """Load or build it.

        Raises:
            InputError: A method that cannot be built.
            KshotError: A checkpoint or backbone that cannot be used.
        """
        if isinstance(self.source, MethodChoice):
            return open_method(self.source, self.name)
        return load_recognizer(self.source, weights=self.weights)


def evaluate(
    examination: Examination,
    subjects: Iterable[Subject],
    *,
    contexts: Sequence[QueryContext] = (),
    device: torch.device,
) -> list[Result]:
    """Ask recognisers, one after another.

    Args:
        examination: What all are asked.
        subjects: Who is asked; those of one method are its seeds.
        contexts: Query contexts to ask each under besides its own.
        device: Where to compute.

    Raises:
        InputError: Subjects of one name of method that differ in their method, or as
            `Subject.open` and `Examination.ask`.
        KshotError: As `Subject.open`.
    """
    results: list[Result] = []
    firsts: dict[str, tuple[str, MethodConfig]] = {}
    for subject in subjects:
        recognizer = subject.open().to(device)
        first, config = firsts.setdefault(subject.method, (subject.name, recognizer.config))
        if recognizer.config != config:
            raise InputError(
                f"{first} and {subject.name} are no seeds of one method; evaluate them one at a "
                "time."
            )
        results += examination.ask(
            recognizer, contexts, checkpoint=subject.name, method=subject.method
        )
    return results
