"""Prototypes that are the mean of a class's shots.

Dimensions: S support clips, Q queries, N classes, T frames, E feature width.
"""

from torch import Tensor, nn

from model.episode import ClassSet, class_set, mean_by_class


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
