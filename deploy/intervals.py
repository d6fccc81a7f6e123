"""Accuracy with its 95 % interval, for single answers and for means over tasks."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

Z = 1.959964  # 97.5 % quantile of the normal distribution


@dataclass(frozen=True, slots=True)
class Accuracy:
    """A share of right answers and the interval that holds it 19 times out of 20."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.mean:.1f} % ({100 * self.low:.1f} to {100 * self.high:.1f})"

    @property
    def interval(self) -> list[float]:
        """The two ends, rounded for a JSON document."""
        return [round(self.low, 4), round(self.high, 4)]


def of_answers(right: int, asked: int) -> Accuracy:
    """Take single answers that do not depend on each other (Wilson's interval)."""
    if not 0 <= right <= asked or asked == 0:
        raise ValueError(f"{right} right of {asked} answers is no share.")
    share, spread = right / asked, Z * Z / asked
    centre = (share + spread / 2) / (1 + spread)
    reach = Z * (share * (1 - share) / asked + spread / asked / 4) ** 0.5 / (1 + spread)
    return Accuracy(share, max(0.0, centre - reach), min(1.0, centre + reach))


def of_tasks(accuracies: Sequence[float]) -> Accuracy:
    """Take the mean over tasks, whose answers depend on each other within a task.

    Student's t quantile is taken by its expansion in 1 / (tasks - 1); up to three tasks have no
    interval narrower than everything.
    """
    mean = statistics.fmean(accuracies)
    free = len(accuracies) - 1
    if free < 3:
        return Accuracy(mean, 0.0, 1.0)
    quantile = Z + (Z**3 + Z) / (4 * free) + (5 * Z**5 + 16 * Z**3 + 3 * Z) / (96 * free**2)
    quantile += (3 * Z**7 + 19 * Z**5 + 17 * Z**3 - 15 * Z) / (384 * free**3)
    reach = quantile * statistics.stdev(accuracies) / len(accuracies) ** 0.5
    return Accuracy(mean, max(0.0, mean - reach), min(1.0, mean + reach))
