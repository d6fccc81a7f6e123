"""Prototypes that are the mean of a class's shots.

Dimensions: S support clips, Q queries, N classes, T frames, E feature width.
"""

import torch
from torch import Tensor, nn

from model.episode import ClassSet, class_means


class MeanPrototypes(nn.Module):
    """Mean frame features of each class's shots, unnormalised."""

    needs_text = False

    def is_initial(self) -> bool:
        """Tell that there is nothing to train."""
        return True

    def forward(self, support_STE: Tensor, classes_S: Tensor, text_NE: Tensor | None) -> ClassSet:  # noqa: ARG002
        """Average the shots of each class."""
        return class_set(support_STE, mean_by_class(support_STE, classes_S), classes_S)

    def query(self, query_QTE: Tensor) -> Tensor:
        """Return query features as they are."""
        return query_QTE


def mean_by_class(features_STE: Tensor, classes_S: Tensor) -> Tensor:
    """Average the shots of each class, unnormalised [N, T, E]."""
    return torch.einsum("ns,ste->nte", class_means(classes_S, features_STE.dtype), features_STE)


def shots_by_class(features_STE: Tensor, classes_S: Tensor) -> tuple[Tensor, ...]:
    """Sort shots into their classes; [K, T, E] each, K may differ."""
    sorted_STE = features_STE[classes_S.argsort(stable=True)]
    return sorted_STE.split(torch.bincount(classes_S).tolist())


def class_set(features_STE: Tensor, prototype_NTE: Tensor, classes_S: Tensor) -> ClassSet:
    """Put prototypes and shots of a task together.

    Args:
        features_STE: Frame features of the support clips, as a matcher reads shots.
        prototype_NTE: Of each class.
        classes_S: Class index of each clip.
    """
    counts = tuple(torch.bincount(classes_S).tolist())
    return ClassSet(prototype_NTE, counts, shots_by_class(features_STE, classes_S))
