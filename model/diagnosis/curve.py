"""Whether a task has enough examples: its accuracy with fewer clips, and what one more would give.

Accuracy is taken to grow with the logarithm of the number of clips, by the same amount for each
doubling: least squares over what was measured with fewer. It is an estimate of the mean task.

Dimensions: Q held-out clips of a split, N labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.diagnosis.splits import Split

PRIOR = 20.0  # held-out clips that a label's own slope has to outweigh


@dataclass(frozen=True, slots=True)
class Curve:
    """Accuracy by clips of a label.

    Args:
        measured: By number of clips, from 1 to one less than there are.
        now: Expected with all clips.
        one_more: Expected with one clip more of each label.
        needy: The label that one more would help most; None where nothing was measured.
    """

    measured: dict[int, float]
    now: float
    one_more: float
    needy: int | None


def curve(
    splits: Sequence[Split], logits: Sequence[np.ndarray], classes: Sequence[int]
) -> Curve | None:
    """Fit the curve of a task; None where no label has two clips.

    Args:
        splits: From `fewer_shots`.
        logits: [Q, N] of each split.
        classes: Label of each clip.
    """
    if not splits:
        return None
    by_shots: dict[int, dict[int, list[float]]] = {}
    for split, logits_QN in zip(splits, logits, strict=True):
        by_label = by_shots.setdefault(split.shots, {})
        for place, logits_N in zip(split.queries, logits_QN, strict=True):
            right = float(logits_N.argmax() == classes[place])
            by_label.setdefault(classes[place], []).append(right)
    measured = {
        shots: float(np.mean([np.mean(right) for right in by_label.values()]))
        for shots, by_label in sorted(by_shots.items())
    }
    shots = max(measured) + 1
    level, slope = _line(measured)
    now = _bounded(level + slope * np.log2(shots), max(measured.values()))
    more = _bounded(level + slope * np.log2(shots + 1), now)
    return Curve(measured, now, more, _needy(by_shots, slope, classes))


def _line(measured: dict[int, float]) -> tuple[float, float]:
    """Fit level and slope; a curve that falls is noise, and one point has no slope."""
    x, y = np.log2(list(measured)), np.array(list(measured.values()))
    if len(measured) == 1:
        return float(y[0]), 0.0
    slope = max(0.0, float(np.cov(x, y, bias=True)[0, 1] / x.var()))
    return float(y.mean() - slope * x.mean()), slope


def _bounded(value: float, least: float) -> float:
    return float(min(1.0, max(value, least)))


def _needy(
    by_shots: dict[int, dict[int, list[float]]], slope: float, classes: Sequence[int]
) -> int:
    """Find the label whose own curve, drawn to that of all, gains most from one clip more."""
    gains = {}
    for label in sorted({*classes}):
        own = {
            shots: float(np.mean(by_label[label]))
            for shots, by_label in sorted(by_shots.items())
            if by_label.get(label)
        }
        count = sum(len(by_label.get(label, ())) for by_label in by_shots.values())
        steep = _line(own)[1] if own else slope
        drawn = (count * steep + PRIOR * slope) / (count + PRIOR)
        clips = list(classes).count(label)
        missing = 1 - own[max(own)] if own else 1.0
        gains[label] = min(missing, drawn * float(np.log2((clips + 1) / clips))), missing
    return max(gains, key=lambda label: gains[label])
