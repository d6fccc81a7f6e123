"""Episodes sorted by their layout: drawn for several ways and shots, or read from a list."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from training.data.datasets import LabelledClip
from training.data.episodes import Episode, EpisodePlan, EpisodeSampler
from training.errors import InputError


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
