"""The page of a report: its parts in order, put into the template."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from training.report.charts import (
    Bar,
    LinePlot,
    Matrix,
    Series,
    StageMap,
    class_bars,
    confused,
    cut,
)
from training.report.results import Comparison, Evaluation, read_document
from training.report.rows import Answers, by_layout, rows_of, sentences, title
from training.run_folder import write_aside

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class LayoutPart:
    """The rows that were asked the same episodes."""

    name: str
    chance: float  # accuracy of guessing, percent
    rows: list[Answers]

    @property
    def bars(self) -> list[Bar]:
        """A bar a row."""
        return [Bar(row.name, row.cell.accuracy, row.cell.reach) for row in self.rows]


@dataclass(frozen=True, slots=True)
class Closer:
    """One row's answers, label by label."""

    name: str
    matrix: Matrix
    classes: list[Bar]
    pairs: list[tuple[str, str, float, int | None]]
    stages: StageMap | None


@dataclass(frozen=True, slots=True)
class Gain:
    """The difference of a row to the base of its layout, percent."""

    mean: float
    reach: float | None
    paired: bool

    @property
    def text(self) -> str:
        """The difference as one reads it."""
        reach = "" if self.reach is None else f" ± {self.reach:.1f}"
        return f"{self.mean:+.1f}{reach}".replace("-", "−")

    @property
    def sure(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.reach is not None and abs(self.mean) > self.reach


def write_report(values: Mapping[str, Any], file: Path) -> None:
    """Write what `evaluate` or `compare` tells as one page.

    Raises:
        InputError: It is of neither command, or the file cannot be written.
    """
    write_aside(file, page(read_document(values, file.name)).encode())


def page(document: Evaluation | Comparison) -> str:
    """Return the page of a document."""
    rows = rows_of(document)
    layouts = by_layout(rows)
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["cut"] = cut
    return environment.get_template("page.html").render(
        css=(HERE / "page.css").read_text(encoding="utf-8"),
        title=title(document),
        sentences=sentences(document),
        command=document.measured.command,
        layouts=[
            LayoutPart(layout_name(layout), 100 / layout[1], asked)
            for layout, asked in layouts.items()
        ],
        plots=plots(rows),
        gains=gains(layouts),
        bases={
            layout_name(layout): next(row.name for row in asked if row.whole)
            for layout, asked in layouts.items()
        },
        methods=document.rows if isinstance(document, Comparison) else [],
        unfinished=document.unfinished if isinstance(document, Comparison) else [],
        closer=[closer(row) for row in rows if row.closer],
    )


def layout_name(layout: tuple[str, int, int]) -> str:
    """Name what episodes have in common."""
    split, ways, shots = layout
    return f"{split}, {ways}-way {shots}-shot"


def plots(rows: Sequence[Answers]) -> list[LinePlot]:
    """Return the curves over ways and over shots, where there are several of them."""
    shown = [row for row in rows if row.closer]
    over_ways: dict[str, list[Answers]] = defaultdict(list)
    over_shots: dict[str, list[Answers]] = defaultdict(list)
    for row in shown:
        over_ways[f"{row.name}, {row.cell.shots}-shot"].append(row)
        over_shots[f"{row.name}, {row.cell.ways}-way"].append(row)
    found = []
    for across, lines in (("ways", over_ways), ("shots", over_shots)):
        series = [
            Series(
                name,
                tuple(
                    (getattr(row.cell, across), row.cell.accuracy, row.cell.reach)
                    for row in sorted(asked, key=lambda row: getattr(row.cell, across))
                ),
            )
            for name, asked in lines.items()
            if len(asked) > 1
        ]
        if series:
            found.append(LinePlot(across, series))
    return found


def gains(layouts: Mapping[tuple[str, int, int], Sequence[Answers]]) -> dict[str, dict[str, Gain]]:
    """Return the differences of rows to the first of their layout: by row, then by layout."""
    found: dict[str, dict[str, Gain]] = defaultdict(dict)
    for layout, asked in layouts.items():
        whole = [row for row in asked if row.whole]
        for row in whole[1:]:
            found[row.name][layout_name(layout)] = gain(whole[0], row)
    return dict(found)


def gain(base: Answers, row: Answers) -> Gain:
    """Return a row's difference to a base: paired where it was recorded, else by both intervals."""
    if (beyond := row.cell.beyond) is not None:
        return Gain(beyond.mean, beyond.interval, paired=True)
    reaches = base.cell.over_episodes, row.cell.over_episodes
    known = [reach for reach in reaches if reach is not None]
    reach = math.hypot(*known) if len(known) == len(reaches) else None
    return Gain(row.cell.accuracy - base.cell.accuracy, reach, paired=False)


def closer(row: Answers) -> Closer:
    """Return one row's answers, label by label."""
    cell = row.cell
    return Closer(
        name=f"{row.name}: {layout_name(row.layout)}",
        matrix=Matrix(cell),
        classes=class_bars(cell.by_class, cell.class_intervals),
        pairs=confused(cell),
        stages=None if cell.stages is None else StageMap(cell.labels, cell.stages),
    )
