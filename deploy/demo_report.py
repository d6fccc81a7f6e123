"""What a demo says: shares of right answers with their 95 % intervals, and a table by label."""

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scipy import stats

from kshot_client.models.results import ClipResult

SHOWN = 3  # labels of a printed ranking


@dataclass(frozen=True, slots=True)
class Share:
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


def of_answers(right: int, asked: int) -> Share:
    """Take single answers that do not depend on each other (Wilson's interval).

    Raises:
        ValueError: Nothing was asked, or more was right than asked.
    """
    found = stats.binomtest(right, asked).proportion_ci(method="wilson")
    return Share(right / asked, float(found.low), float(found.high))


def of_tasks(shares: Sequence[float]) -> Share:
    """Take the mean over tasks, whose answers depend on each other within a task.

    The interval is Student's, cut off at 0 and 1; up to three tasks say nothing of it.
    """
    mean = statistics.fmean(shares)
    free = len(shares) - 1
    if free < 3:
        return Share(mean, 0.0, 1.0)
    reach = stats.t.ppf(0.975, free) * statistics.stdev(shares) / len(shares) ** 0.5
    return Share(mean, max(0.0, mean - reach), min(1.0, mean + reach))


def document(share: Share) -> dict[str, Any]:
    """Give a share of right answers as part of the JSON line."""
    return {"accuracy": round(share.mean, 4), "interval": share.interval}


def table(truths: list[str], results: Sequence[ClipResult]) -> str:
    """Show, for each label, how many clips were right and the ranking of its first one.

    Args:
        truths: Label of each clip.
        results: What the service said of each clip.
    """
    labels = sorted(set(truths))
    number = {label: place for place, label in enumerate(labels, start=1)}
    asked = Counter(truths)
    right = Counter(
        truth for truth, result in zip(truths, results, strict=True) if result.label == truth
    )
    width = max(len("label"), *(len(label) for label in labels))
    lines = [f"    {'label':<{width}}  clips  right  ranking of its first clip"]
    for label in labels:
        first = results[truths.index(label)].ranking[:SHOWN]
        ranking = "  ".join(f"({number[row.label]}) {row.score:.3f}" for row in first)
        row = f"({number[label]}) {label:<{width}}  {asked[label]:>5}  {right[label]:>5}"
        lines.append(f"{row}  {ranking}")
    return "\n".join(lines)
