"""Episodes of a set of clips: N way, K shot, Q queries a class, a function of seed and number.

Support and query clips of a class come from different source groups, so that no two of them are
cut from one video; queries are shuffled. Where clips have families, the classes of an episode are
of one family: its data set is drawn first, then the family.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from training.data.datasets import LabelledClip
from training.errors import InputError

T = TypeVar("T")

TRIES = 100  # draws of one class's supports before whole source groups are drawn instead


@dataclass(frozen=True, slots=True)
class Episode:
    """Indices of clips; class n of an episode is `labels[n]`."""

    labels: tuple[str, ...]
    support: tuple[int, ...]  # clips, class by class
    support_classes: tuple[int, ...]
    query: tuple[int, ...]  # clips, shuffled
    query_classes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class EpisodePlan:
    """The sizes of episodes; a pair is a range with both ends, drawn for each episode.

    Args:
        ways: N, classes of an episode.
        shots: K, support clips of each class; one K an episode.
        queries: Q, query clips of each class.

    Raises:
        InputError: A size is below 1, or the larger end of a range comes first.
    """

    ways: int | tuple[int, int]
    shots: int | tuple[int, int]
    queries: int

    def __post_init__(self) -> None:
        for name in ("ways", "shots", "queries"):
            low, high = _range(getattr(self, name))
            if not 1 <= low <= high:
                raise InputError(
                    f"Episodes of {getattr(self, name)} {name} cannot be drawn; give 1 or more, "
                    "the smaller end of a range first."
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnEpisodes:
    """Episodes of each number of ways and shots, drawn with a seed."""

    ways: tuple[int, ...] = ()  # none stands for five, or all labels where there are fewer
    shots: tuple[int, ...] = (1, 5)
    queries: int = 5  # of each class
    episodes: int = 3000  # of each number of ways and shots
    seed: int = 0


EVALUATING = DrawnEpisodes()
# Of each size that the clips allow: what a calibration is fitted to.
CALIBRATING = DrawnEpisodes(
    ways=(2, 3, 5, 10), shots=(1, 2, 3, 4, 5), queries=5, episodes=200, seed=1
)


@dataclass(frozen=True, slots=True)
class _Class:
    """The clips of one label, and for each the number of its source group within the label."""

    clips: NDArray[np.int64]
    groups: NDArray[np.int64]
    group_count: int


class EpisodeSampler:
    """Draws episodes from clips that are indexed by class once.

    Args:
        clips: The clips of one split.
        plan: The sizes.
        seed: Of all episodes; each is a function of seed and number alone, so that workers and
            resumed runs draw the same.

    Raises:
        InputError: There are too few classes, or a class has too few clips or source groups.
    """

    def __init__(self, clips: Sequence[LabelledClip], plan: EpisodePlan, seed: int) -> None:
        self.plan = plan
        self.seed = seed
        self.labels = tuple(sorted({clip.label for clip in clips}))
        self._families = [
            [
                {label: _index(clips, found) for label, found in sorted(family.items())}
                for _, family in sorted(families.items())
            ]
            for _, families in sorted(_members(clips).items())
        ]
        self._check()

    @classmethod
    def fits(cls, clips: Sequence[LabelledClip], plan: EpisodePlan) -> bool:
        """Tell whether clips allow episodes of these sizes."""
        try:
            cls(clips, plan, 0)
        except InputError:
            return False
        return True

    def draw(self, number: int) -> Episode:
        """Draw episode `number`."""
        rng = np.random.default_rng([self.seed, number])
        classes = _one_of(_one_of(self._families, rng), rng)
        ways, shots = _drawn(self.plan.ways, rng), _drawn(self.plan.shots, rng)
        labels = [str(label) for label in rng.permutation(list(classes))[:ways]]
        support: list[int] = []
        pairs: list[tuple[int, int]] = []
        for place, label in enumerate(labels):
            shown, asked = _draw_class(classes[label], shots, self.plan.queries, rng)
            support.extend(shown)
            pairs.extend((clip, place) for clip in asked)
        order = rng.permutation(len(pairs))
        return Episode(
            labels=tuple(labels),
            support=tuple(support),
            support_classes=tuple(n for n in range(ways) for _ in range(shots)),
            query=tuple(pairs[i][0] for i in order),
            query_classes=tuple(pairs[i][1] for i in order),
        )

    def _check(self) -> None:
        families = [classes for families in self._families for classes in families]
        for classes in families:
            self._check_family(classes, alone=len(families) == 1)

    def _check_family(self, classes: Mapping[str, _Class], *, alone: bool) -> None:
        ways, shots = _range(self.plan.ways)[1], _range(self.plan.shots)[1]
        if ways > len(classes):
            where = "" if alone else f" in the family of {next(iter(classes))!r}"
            raise InputError(f"{ways} ways need as many classes; there are {len(classes)}{where}.")
        for label, held in classes.items():
            if not _divisible(held, shots, self.plan.queries):
                raise InputError(
                    f"The label {label!r} with {len(held.clips)} clips of {held.group_count} "
                    f"source groups is too small for {shots} shots and {self.plan.queries} "
                    "queries of other source groups; lower them, or add clips."
                )


def fewest_labels(clips: Iterable[LabelledClip]) -> int:
    """Return how many labels the smallest family has: the most ways of an episode."""
    labels: dict[tuple[str, str], set[str]] = defaultdict(set)
    for clip in clips:
        labels[clip.dataset, clip.family].add(clip.label)
    return min((len(found) for found in labels.values()), default=0)


def draw_episode(
    clips: Sequence[LabelledClip],
    *,
    ways: int,
    shots: int,
    queries: int,
    seed: int,
    number: int,
) -> Episode:
    """Draw one episode; `EpisodeSampler` draws many faster.

    Raises:
        InputError: As `EpisodeSampler`.
    """
    return EpisodeSampler(clips, EpisodePlan(ways, shots, queries), seed).draw(number)


def _range(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def _drawn(size: int | tuple[int, int], rng: np.random.Generator) -> int:
    low, high = _range(size)
    return low if low == high else int(rng.integers(low, high + 1))


def _members(clips: Sequence[LabelledClip]) -> Mapping[str, Mapping[str, dict[str, list[int]]]]:
    """Return the clips of each label of each family of each data set."""
    members: dict[str, dict[str, dict[str, list[int]]]] = {}
    for index, clip in enumerate(clips):
        family = members.setdefault(clip.dataset, {}).setdefault(clip.family, {})
        family.setdefault(clip.label, []).append(index)
    return members


def _one_of(choices: Sequence[T], rng: np.random.Generator) -> T:
    """Draw one; where there is only one, the generator stays as it was."""
    return choices[0] if len(choices) == 1 else choices[int(rng.integers(len(choices)))]


def _index(clips: Sequence[LabelledClip], members: Sequence[int]) -> _Class:
    numbers: dict[str, int] = {}
    groups = [numbers.setdefault(clips[index].source_group, len(numbers)) for index in members]
    return _Class(np.asarray(members), np.asarray(groups), len(numbers))


def _divisible(held: _Class, shots: int, queries: int) -> bool:
    """Tell whether source groups can be divided into `shots` and `queries` clips or more."""
    reachable = 1  # bit n: some groups have n clips together
    for size in np.bincount(held.groups).tolist():
        reachable |= reachable << size
    most = len(held.clips) - queries
    return any(reachable >> clips & 1 for clips in range(shots, most + 1))


def _draw_class(
    held: _Class, shots: int, queries: int, rng: np.random.Generator
) -> tuple[list[int], list[int]]:
    for _ in range(TRIES):
        shown = rng.permutation(len(held.clips))[:shots]
        others = held.clips[_outside(held, held.groups[shown])]
        if len(others) >= queries:
            return held.clips[shown].tolist(), rng.permutation(others)[:queries].tolist()
    return _draw_by_groups(held, shots, queries, rng)


def _draw_by_groups(
    held: _Class, shots: int, queries: int, rng: np.random.Generator
) -> tuple[list[int], list[int]]:
    """Draw supports from the first groups of a random order, for a class of few, large groups."""
    while True:  # ends: `_divisible` holds, so that an order with fitting groups first comes
        order = rng.permutation(held.group_count)
        sizes = np.bincount(held.groups)[order].cumsum()
        first = order[: int(np.searchsorted(sizes, shots)) + 1]
        outside = _outside(held, first)
        if outside.sum() >= queries:
            shown = rng.permutation(held.clips[~outside])[:shots]
            return shown.tolist(), rng.permutation(held.clips[outside])[:queries].tolist()


def _outside(held: _Class, groups: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Mark the clips of other source groups."""
    inside = np.zeros(held.group_count, bool)
    inside[groups] = True
    return ~inside[held.groups]
