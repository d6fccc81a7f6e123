"""Which queries a task remembers, and what it has learnt from those that were none of its labels.

A task's record holds these values, so nothing of a record is imported here.
"""

import math
from collections.abc import Iterable
from typing import Annotated, Literal, NamedTuple

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

MOST_KEPT = 500  # queries that a task remembers
LEAST_NONE = 5  # queries that were none of the labels, from which on they move the threshold
REFUSED = 0.8  # part of them that it refuses then
MOST_RAISED = 0.15  # of a cosine; measured in training/experiments/open_set.md
SLACK = 1e-4  # of a cosine: a clip does not score alike to the last digit in every batch

ThresholdBy = Literal["checkpoint", "task", "none_of_these"]
_STRICT = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class InboxPolicy:
    """Which queries a task remembers without being asked."""

    keep: Annotated[int, Field(ge=1, le=MOST_KEPT)]
    below: Annotated[float, Field(ge=0, le=1)]  # the score of an answer; unknown ones in any case


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class NoneOfThese:
    """A remembered query that is none of the labels, as somebody said."""

    query_id: str
    nearest: Annotated[float, Field(allow_inf_nan=False)]
    model: str  # whose cosine that is


class Threshold(NamedTuple):
    """The cosine below which a query is none of the labels, and whose it is."""

    value: float
    by: ThresholdBy


def raised(usual: float, none_of_these: Iterable[NoneOfThese], model: str) -> float:
    """Raise a threshold until it refuses most queries that were none, where these are enough.

    It is raised by `MOST_RAISED` at most, so that queries which look like the labels do not have
    the labels refused.
    """
    none = sorted(each.nearest for each in none_of_these if each.model == model)
    if len(none) < LEAST_NONE:
        return usual
    wanted = none[math.ceil(REFUSED * len(none)) - 1] + SLACK
    return max(usual, min(wanted, usual + MOST_RAISED))
