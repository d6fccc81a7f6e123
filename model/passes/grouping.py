"""Which queries of a batch are scored at once, and the classes of all their tasks as one set.

Dimensions: Q clips, N classes, A stages, T frames, E feature width.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.episode import ClassSet, EncodedSupport
from model.matching.trust import joined_trust


def joined(sets: Sequence[ClassSet]) -> ClassSet:
    """Return the classes of several tasks as one set, in order."""
    if len(sets) == 1:
        return sets[0]
    centres = [one.centre_NE for one in sets if one.centre_NE is not None]
    chain = itertools.chain.from_iterable
    return ClassSet(
        torch.cat([one.prototype_NTE for one in sets]),
        tuple(chain(one.counts for one in sets)),
        tuple(chain(one.shots for one in sets)),
        torch.cat(centres) if centres else None,
        joined_trust([one.trust for one in sets]),
    )


@dataclass(frozen=True, slots=True)
class Group:
    """Queries of a batch that are scored at once, against the classes of all their tasks.

    Args:
        places: Where each query stands in the batch.
        columns: Which classes are the query's own task's.
        classes: Of all their tasks.
        text_NAE: Of these classes, or None.
    """

    places: tuple[int, ...]
    columns: tuple[slice, ...]
    classes: ClassSet
    text_NAE: Tensor | None

    def own(self, features_QTE: Tensor) -> Tensor:
        """Return the features of the group's queries out of the batch's."""
        whole = len(self.places) == len(features_QTE)
        return features_QTE if whole else features_QTE[list(self.places)]  # an index is an upload


def scored_together(supports: Sequence[EncodedSupport], *, per_task: bool) -> list[Group]:
    """Part the queries of a batch into those that are scored at once.

    Args:
        supports: The task of each query.
        per_task: Whether queries meet the classes of their own task alone.
    """
    alike: dict[object, list[int]] = {}
    for place, support in enumerate(supports):
        kind = id(support) if per_task else support.text_NAE is None
        alike.setdefault(kind, []).append(place)
    return [_group(supports, places) for places in alike.values()]


def _group(supports: Sequence[EncodedSupport], places: Sequence[int]) -> Group:
    tasks = {id(supports[place]): supports[place] for place in places}
    ends = itertools.accumulate(len(task.counts) for task in tasks.values())
    columns = {
        key: slice(end - len(task.counts), end)
        for (key, task), end in zip(tasks.items(), ends, strict=True)
    }
    texts = [task.text_NAE for task in tasks.values() if task.text_NAE is not None]
    return Group(
        tuple(places),
        tuple(columns[id(supports[place])] for place in places),
        joined([task.classes for task in tasks.values()]),
        torch.cat(texts) if texts else None,
    )
