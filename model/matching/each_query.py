"""Queries against classes that may not be the same for each of them.

Dimensions: Q clips, N classes, T frames, E feature width.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from model.episode import ClassSet
from model.slots import Matcher, Prototypes, QueryPrototypes


def video_score(
    prototypes: Prototypes, matcher: Matcher, query_QTE: Tensor, classes: ClassSet
) -> Tensor:
    """Return video_QN: all queries at once, or each with the classes that it meets."""
    if not prototypes.per_query:
        return matcher(query_QTE, classes)
    meeting = cast(QueryPrototypes, prototypes).meet(query_QTE, classes)
    return torch.cat([matcher(*met) for met in meeting])


def graph_edges(prototypes: Prototypes, query_QTE: Tensor, classes: ClassSet) -> Sequence[Tensor]:
    """Return what `QueryPrototypes.edges` says, or nothing where no query meets other classes."""
    if not prototypes.per_query:
        return ()
    return cast(QueryPrototypes, prototypes).edges(query_QTE, classes)
