"""Episodes of an indexed set of clips: N way, K shot, Q queries a class, seeded one by one.

Support and query clips of a class come from different source groups, so that no two of them are
cut from one video; queries are shuffled.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.errors import InputError
from training.frame_folders import read_index

TRIES = 100  # draws of one class's supports before a set is called too small


@dataclass(frozen=True, slots=True)
class LabelledClip:
    """One clip of an index."""

    path: Path
    label: str
    source_group: str


@dataclass(frozen=True, slots=True)
class Episode:
    """Indices of clips; class n of an episode is `labels[n]`."""

    labels: tuple[str, ...]
    support: tuple[int, ...]  # clips, class by class
    support_classes: tuple[int, ...]
    query: tuple[int, ...]  # clips, shuffled
    query_classes: tuple[int, ...]


def read_clips(index: Path, split: str) -> list[LabelledClip]:
    """Return the clips of one split of an index.csv.

    Raises:
        InputError: no such split.
    """
    rows = read_index(index)
    clips = [
        LabelledClip(index.parent / row["path"], row["label"], row["source_group"])
        for row in rows
        if row["split"] == split
    ]
    if not clips:
        known = ", ".join(sorted({row["split"] for row in rows}))
        raise InputError(f"{index} has no split {split!r}; it has {known}.")
    return clips


def draw_episode(
    clips: Sequence[LabelledClip],
    *,
    ways: int,
    shots: int,
    queries: int,
    seed: int,
    number: int,
) -> Episode:
    """Draw episode `number`: a function of the arguments alone.

    Raises:
        InputError: too few classes, or a class with too few clips or source groups.
    """
    rng = np.random.default_rng([seed, number])
    members: dict[str, list[int]] = defaultdict(list)
    for index, clip in enumerate(clips):
        members[clip.label].append(index)
    if ways > len(members):
        raise InputError(f"{ways} ways need as many classes; there are {len(members)}.")
    labels = [str(label) for label in rng.permutation(sorted(members))[:ways]]
    support: list[int] = []
    pairs: list[tuple[int, int]] = []
    for number_of_class, label in enumerate(labels):
        shown, asked = _draw_class(clips, members[label], shots, queries, rng)
        support.extend(shown)
        pairs.extend((clip, number_of_class) for clip in asked)
    order = rng.permutation(len(pairs))
    return Episode(
        labels=tuple(labels),
        support=tuple(support),
        support_classes=tuple(n for n in range(ways) for _ in range(shots)),
        query=tuple(pairs[i][0] for i in order),
        query_classes=tuple(pairs[i][1] for i in order),
    )


def _draw_class(
    clips: Sequence[LabelledClip],
    members: Sequence[int],
    shots: int,
    queries: int,
    rng: np.random.Generator,
) -> tuple[list[int], list[int]]:
    for _ in range(TRIES if len(members) >= shots + queries else 0):
        shown = [int(index) for index in rng.permutation(members)[:shots]]
        groups = {clips[index].source_group for index in shown}
        others = [index for index in members if clips[index].source_group not in groups]
        if len(others) >= queries:
            return shown, [int(index) for index in rng.permutation(others)[:queries]]
    raise InputError(
        f"The label {clips[members[0]].label!r} with {len(members)} clips is too small for "
        f"{shots} shots and {queries} queries of other source groups; lower them."
    )
