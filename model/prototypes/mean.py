"""Prototypes that are the mean of a class's shots.

Dimensions: S support clips, Q queries, N classes, T frames, E feature width.
"""

import torch
from torch import Tensor, nn

from model.episode import ClassSet


class MeanPrototypes(nn.Module):
    """Mean frame features of each class's shots, unnormalised.

    Args:
        keep_shots: Whether the `ClassSet` holds the shots too, for a matcher that reads them.
    """

    needs_text = False
    per_query, per_task, transductive = False, False, False

    def __init__(self, *, keep_shots: bool = False) -> None:
        super().__init__()
        self.keep_shots = keep_shots

    def is_initial(self) -> bool:
        """Tell that there is nothing to train."""
        return True

    def forward(self, support_STE: Tensor, classes_S: Tensor, text_NE: Tensor | None) -> ClassSet:  # noqa: ARG002
        """Average the shots of each class."""
        prototype_NTE = mean_by_class(support_STE, classes_S)
        return class_set(prototype_NTE, classes_S, support_STE if self.keep_shots else None)

    def query(self, query_QTE: Tensor) -> Tensor:
        """Return query features as they are."""
        return query_QTE


def class_means(classes_S: Tensor, dtype: torch.dtype) -> Tensor:
    """Return rows [N, S] that average the clips of each class."""
    member_SN = nn.functional.one_hot(classes_S).to(dtype)
    return (member_SN / member_SN.sum(dim=0)).T


def mean_by_class(features_STE: Tensor, classes_S: Tensor) -> Tensor:
    """Average the shots of each class, unnormalised [N, T, E]."""
    return torch.einsum("ns,ste->nte", class_means(classes_S, features_STE.dtype), features_STE)


def shots_by_class(features_STE: Tensor, classes_S: Tensor) -> tuple[Tensor, ...]:
    """Sort shots into their classes; [K, T, E] each, K may differ."""
    sorted_STE = features_STE[classes_S.argsort(stable=True)]
    return sorted_STE.split(torch.bincount(classes_S).tolist())


def class_set(prototype_NTE: Tensor, classes_S: Tensor, shots_STE: Tensor | None) -> ClassSet:
    """Put the classes of a task together.

    Args:
        prototype_NTE: Of each class.
        classes_S: Class index of each support clip.
        shots_STE: Frame features of the support clips, where a matcher reads them.
    """
    counts = tuple(torch.bincount(classes_S).tolist())
    shots = () if shots_STE is None else shots_by_class(shots_STE, classes_S)
    return ClassSet(prototype_NTE, counts, shots)
