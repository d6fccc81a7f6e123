"""The charts of a report as values that a template draws; places are percents of a chart.

Only x is relative and text keeps its size, so a chart is as wide as its place and is readable in a
narrow one.
"""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from training.report.results import Cell, Stages

LONGEST = 38  # characters of a name beside a bar
LONGEST_ROW = 12  # of a name beside a matrix
MOST_LABELS = 40  # of a matrix that one can read
CONFUSED = 10  # pairs that are listed
GUTTER, LEFT, RIGHT = 34.0, 7.0, 98.0  # percents: beside a matrix, and of a line chart


@dataclass(frozen=True, slots=True)
class Bar:
    """A named value from 0 to 100 with its 95 % interval."""

    name: str
    value: float | None
    reach: float | None = None

    @property
    def short(self) -> str:
        """The name, cut to fit."""
        return cut(self.name, LONGEST)

    @property
    def low(self) -> float:
        """Where its interval begins."""
        return max(0.0, (self.value or 0) - (self.reach or 0))

    @property
    def high(self) -> float:
        """Where its interval ends."""
        return min(100.0, (self.value or 0) + (self.reach or 0))

    @property
    def text(self) -> str:
        """The value as one reads it."""
        return figure(self.value, self.reach)


@dataclass(frozen=True, slots=True)
class Series:
    """A named line of (place, value, interval)."""

    name: str
    points: tuple[tuple[int, float, float | None], ...]


class LinePlot:
    """Lines of values over a number, each number in a place of its own.

    Args:
        across: What the number is.
        series: The lines.
    """

    HEIGHT, TOP, BOTTOM = 260, 12, 226  # pixels

    def __init__(self, across: str, series: Sequence[Series]) -> None:
        self.across, self.series = across, series
        self.numbers = sorted({number for line in series for number, _, _ in line.points})
        ends = [
            value + sign * (reach or 0)
            for line in series
            for _, value, reach in line.points
            for sign in (-1, 1)
        ]
        self.floor = min(90, max(0, 10 * math.floor(min(ends) / 10)))
        self.ceiling = max(self.floor + 10, min(100, 10 * math.ceil(max(ends) / 10)))

    def x(self, number: int) -> float:
        """Return the place of a number, percent."""
        steps = max(1, len(self.numbers) - 1)
        inset = (RIGHT - LEFT) * 0.08
        width = RIGHT - LEFT - 2 * inset
        return round(LEFT + inset + width * self.numbers.index(number) / steps, 2)

    def y(self, value: float) -> float:
        """Return the height of a value, pixels from the top."""
        share = (min(max(value, self.floor), self.ceiling) - self.floor) / (
            self.ceiling - self.floor
        )
        return round(self.BOTTOM - share * (self.BOTTOM - self.TOP), 1)

    @property
    def ticks(self) -> range:
        """Values that have a line across."""
        return range(self.floor, self.ceiling + 1, 10 if self.ceiling - self.floor <= 60 else 20)

    def strokes(self, line: Series) -> Iterable[tuple[float, float, float, float]]:
        """Return the parts of a line: from x, y to x, y."""
        for (first, low, _), (second, high, _) in itertools.pairwise(line.points):
            yield self.x(first), self.y(low), self.x(second), self.y(high)

    def shift(self, line: Series) -> float:
        """Return by how many pixels a line stands aside, so that intervals do not cover others."""
        return 4.0 * (self.series.index(line) - (len(self.series) - 1) / 2)


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a matrix; `share` of its colour is shown."""

    x: float
    y: int
    text: str
    below: str
    share: float
    own: bool


class Matrix:
    """Which label [row] was answered by which [column], in percent and counts."""

    STEP = 38  # pixels of a row

    def __init__(self, cell: Cell) -> None:
        self.labels = cell.labels
        self.width = (100 - GUTTER) / max(1, len(self.labels))
        self.counted = cell.answered is not None
        self.fields = [
            Field(
                x=round(GUTTER + column * self.width, 3),
                y=row * self.STEP,
                text=f"{share:.0f}%",
                below=f"{cell.answered[row][column]:,}" if cell.answered is not None else "",
                share=share / 100,
                own=row == column,
            )
            for row, shares in enumerate(cell.confusion)
            for column, share in enumerate(shares)
            if share is not None
        ]

    def row(self, row: int) -> list[str]:
        """Return the texts of a row; a dash where the labels never met."""
        texts = {
            field.x: f"{field.text} {field.below}"
            for field in self.fields
            if field.y == row * self.STEP
        }
        places = (round(GUTTER + column * self.width, 3) for column in range(len(self.labels)))
        return [texts.get(x, "–").strip() for x in places]

    @property
    def readable(self) -> bool:
        """Whether it is small enough to be looked at."""
        return len(self.labels) <= MOST_LABELS

    @property
    def height(self) -> int:
        """Pixels of all rows."""
        return len(self.labels) * self.STEP

    @property
    def narrowest(self) -> float:
        """Width under which it scrolls, in rem."""
        return max(20.0, round(len(self.labels) * 2.3 / (1 - GUTTER / 100), 1))


class StageMap:
    """Mean scores of each label's queries against the stages of its text and of the others'."""

    STEP = 26

    def __init__(self, labels: Sequence[str], stages: Stages) -> None:
        self.labels = labels
        count = len(stages.own[0])
        self.heads = [f"own {n + 1}" for n in range(count)]
        self.heads += [f"others {n + 1}" for n in range(count)]
        self.rows = [own + others for own, others in zip(stages.own, stages.others, strict=True)]
        self.width = (100 - GUTTER) / (2 * count)
        known = [value for row in self.rows for value in row if value is not None]
        self.low, self.high = min(known, default=0.0), max(known, default=1.0)
        self.fields = [
            Field(
                x=round(GUTTER + column * self.width, 3),
                y=number * self.STEP,
                text=f"{value:.2f}",
                below="",
                share=(value - self.low) / max(1e-9, self.high - self.low),
                own=column < count,
            )
            for number, row in enumerate(self.rows)
            for column, value in enumerate(row)
            if value is not None
        ]

    @property
    def height(self) -> int:
        """Pixels of all rows."""
        return len(self.labels) * self.STEP


def confused(cell: Cell) -> list[tuple[str, str, float, int | None]]:
    """Return the pairs that are confused most: label, answer, percent, and how often."""
    pairs = [
        (label, other, share, cell.answered[row][column] if cell.answered else None)
        for row, label in enumerate(cell.labels)
        for column, other in enumerate(cell.labels)
        if row != column and (share := cell.confusion[row][column])
    ]
    return sorted(pairs, key=lambda pair: -pair[2])[:CONFUSED]


def class_bars(
    by_class: Mapping[str, float | None], reach: Mapping[str, float | None]
) -> list[Bar]:
    """Return a bar a label."""
    return [Bar(label, share, reach.get(label)) for label, share in by_class.items()]


def figure(value: float | None, reach: float | None) -> str:
    """Write a value with its interval."""
    if value is None:
        return "not asked"
    return f"{value:.1f}" if reach is None else f"{value:.1f} ± {reach:.1f}"


def cut(name: str, longest: int = LONGEST_ROW) -> str:
    """Return the beginning of a name that is too long."""
    return name if len(name) <= longest else f"{name[: longest - 1]}…"
