"""Which clips of a task are held out to judge the others.

One clip of each label is held out at a time, so that no label has fewer clips than another because
of the question. Which clips are held out together is drawn anew in each round.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ROUNDS = 3  # of leaving out each clip once
ASKED = 12  # clips of a label that are asked for each number of shots, at least
SEED = 0  # the same task gets the same answer


@dataclass(frozen=True, slots=True)
class Split:
    """Clips that stand for their labels, and clips that are asked about, by their places."""

    supports: tuple[int, ...]
    queries: tuple[int, ...]
    shots: int  # most clips of a label among the supports


def places_of(classes: Sequence[int]) -> list[list[int]]:
    """Return the places of each label's clips."""
    found: list[list[int]] = [[] for _ in range(max(classes) + 1)]
    for place, label in enumerate(classes):
        found[label].append(place)
    return found


def leave_one_out(classes: Sequence[int], rounds: int = ROUNDS) -> list[Split]:
    """Hold out each clip of every label with two or more, once a round."""
    rng = np.random.default_rng(SEED)
    splits = []
    for _ in range(rounds):
        order = [rng.permutation(places).tolist() for places in places_of(classes)]
        for fold in range(max(map(len, order))):
            out = [places[fold % len(places)] for places in order if len(places) > 1]
            splits.append(_split(classes, out))
    return [split for split in splits if split.queries]


def fewer_shots(classes: Sequence[int], asked: int = ASKED) -> list[Split]:
    """Let 1, 2, ... clips of each label stand for it, and hold out all others."""
    rng = np.random.default_rng(SEED)
    order = places_of(classes)
    most, splits = max(map(len, order)), list[Split]()
    for shots in range(1, most):
        for _ in range(-(-asked // (most - shots))):  # the fewer a draw asks, the more draws
            out: list[int] = []
            for places in order:
                stay = max(1, min(shots, len(places) - 1))
                out += rng.permutation(places).tolist()[stay:]
            splits.append(_split(classes, out))
    return [split for split in splits if split.queries]


def _split(classes: Sequence[int], out: Sequence[int]) -> Split:
    supports = tuple(sorted(set(range(len(classes))) - set(out)))
    most = max(
        len([place for place in supports if classes[place] == label]) for label in {*classes}
    )
    return Split(supports, tuple(sorted(out)), most)
