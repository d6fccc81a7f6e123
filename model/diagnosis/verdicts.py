"""What held-out clips say of a task: its accuracy, its confusions, and clips out of place.

Dimensions: Q held-out clips of a split, S clips, N labels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.diagnosis.splits import Split

Z = 1.96  # of an interval of 95 %


@dataclass(frozen=True, slots=True)
class Accuracy:
    """A share of held-out clips that were recognised, with Wilson's interval of 95 %."""

    value: float
    low: float
    high: float
    clips: int


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What the other clips of a task say of each of its clips.

    Args:
        labels_SN: Share of the times that a clip was held out in which it was taken for a label;
            NaN where it never was.
        margin_S: By how much its own label's logit exceeds the best of the others, on average.
        classes: Label of each clip.
    """

    labels_SN: np.ndarray
    margin_S: np.ndarray
    classes: tuple[int, ...]

    @property
    def claimed(self) -> np.ndarray:
        """Share of the times in which a clip was taken for its own label; NaN if never asked."""
        claimed: np.ndarray = self.labels_SN[range(len(self.classes)), list(self.classes)]
        return claimed

    def accuracy(self, label: int | None = None) -> Accuracy | None:
        """Return the accuracy of a label, or of all; None where no clip could be held out."""
        asked = [
            own
            for own, known in zip(self.claimed, self.classes, strict=True)
            if not math.isnan(own) and label in (None, known)
        ]
        return wilson(float(np.mean(asked)), len(asked)) if asked else None

    def confusions(self) -> list[tuple[int, int, float]]:
        """List (label, taken for, share of its held-out clips), the most frequent first."""
        found = []
        labels = self.labels_SN.shape[1]
        for label in range(labels):
            rows = self.labels_SN[np.array(self.classes) == label]
            rows = rows[~np.isnan(rows[:, 0])]
            if len(rows):
                shares = rows.mean(axis=0)
                found += [
                    (label, other, float(shares[other]))
                    for other in range(labels)
                    if other != label and shares[other] > 0
                ]
        return sorted(found, key=lambda each: -each[2])

    def suspicious(self) -> list[int]:
        """List held-out clips, the one that its own label claims least first."""
        asked = [place for place, own in enumerate(self.claimed) if not math.isnan(own)]
        return sorted(asked, key=lambda place: float(self.margin_S[place]))


def verdicts(
    splits: Sequence[Split], logits: Sequence[np.ndarray], classes: Sequence[int]
) -> Verdicts:
    """Gather what each clip was taken for.

    Args:
        splits: From `leave_one_out`.
        logits: [Q, N] of each split.
        classes: Label of each clip.
    """
    labels = max(classes) + 1
    taken_SN, margin_S = np.zeros((len(classes), labels)), np.zeros(len(classes))
    asked_S = np.zeros(len(classes))
    for split, logits_QN in zip(splits, logits, strict=True):
        for place, logits_N in zip(split.queries, logits_QN, strict=True):
            own = classes[place]
            taken_SN[place, int(logits_N.argmax())] += 1
            margin_S[place] += logits_N[own] - np.delete(logits_N, own).max()
            asked_S[place] += 1
    with np.errstate(invalid="ignore"):
        return Verdicts(taken_SN / asked_S[:, None], margin_S / asked_S, tuple(classes))


def wilson(value: float, count: int) -> Accuracy:
    """Return a share of `count` trials with Wilson's interval."""
    middle = (value + Z * Z / (2 * count)) / (1 + Z * Z / count)
    spread = math.sqrt(value * (1 - value) / count + Z * Z / (4 * count * count))
    half = Z * spread / (1 + Z * Z / count)
    return Accuracy(value, max(0.0, middle - half), min(1.0, middle + half), count)
