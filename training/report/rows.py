"""The rows of a report: named answers of either command, and what was measured in a sentence."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from training.report.results import Cell, Comparison, Evaluation

Layout = tuple[str, int, int]  # split, ways, shots


@dataclass(frozen=True, slots=True)
class Answers:
    """A named row's answers to the episodes of one layout.

    Args:
        name: Of the row, for people.
        split: Whose labels were asked.
        cell: The figures.
        whole: Whether it stands for itself, and is no seed of a mean.
        closer: Whether the page shows it label by label.
    """

    name: str
    split: str
    cell: Cell
    whole: bool
    closer: bool

    @property
    def layout(self) -> Layout:
        """What the episodes that were asked have in common."""
        return self.split, self.cell.ways, self.cell.shots


def rows_of(document: Evaluation | Comparison) -> list[Answers]:
    """Return all rows; those of test before those of val."""
    if isinstance(document, Evaluation):
        return _evaluated(document)
    found = []
    for split in ("test", "val"):
        cells = [(row.name, cell) for row in document.rows for cell in getattr(row, split)]
        # Val chose the weights, so only test is shown label by label.
        found += [
            Answers(name, split, cell, whole=True, closer=split == "test")
            for name, cell in _named(cells)
        ]
    return found


def _evaluated(document: Evaluation) -> list[Answers]:
    cells = [(cell.checkpoint, cell) for cell in document.rows]
    cells += [(f"mean of {cell.seeds} seeds", cell) for cell in document.over_seeds]
    seeds = {name for cell in document.over_seeds for name in cell.checkpoints}
    return [
        Answers(name, document.split, cell, whole=whole, closer=whole)
        for name, cell in _named(cells)
        for whole in [cell.checkpoint not in seeds]
    ]


def _named(cells: Sequence[tuple[str, Cell]]) -> list[tuple[str, Cell]]:
    """Add to a name what tells its readings apart."""
    contexts: dict[str, set[tuple[str, bool]]] = defaultdict(set)
    for name, cell in cells:
        contexts[name].add((cell.query_context, cell.transductive))
    found = []
    for name, cell in cells:
        several = len(contexts[name]) > 1
        context = f", queries see {cell.query_context}" if several else ""
        joint = " (transductive)" if cell.transductive else ""
        found.append((f"{name}{context}{joint}", cell))
    return found


def by_layout(rows: Iterable[Answers]) -> dict[Layout, list[Answers]]:
    """Sort rows by what they were asked, in order."""
    found: dict[Layout, list[Answers]] = defaultdict(list)
    for row in rows:
        found[row.layout].append(row)
    return dict(found)


def title(document: Evaluation | Comparison) -> str:
    """Name the page."""
    data = document.measured.data
    on = f" on {data}" if data else ""
    if isinstance(document, Comparison):
        return f"Few-shot methods compared{on}"
    return f"Few-shot accuracy{on}, {document.split} labels"


def sentences(document: Evaluation | Comparison) -> list[str]:
    """Say what was measured, and with what."""
    said = [_compared(document) if isinstance(document, Comparison) else _asked(document)]
    held = document.measured.environment
    if held:
        told = [f"{name} {held[name]}" for name in ("torch", "python", "device") if name in held]
        machine = f" ({held['machine']})" if "machine" in held else ""
        said.append(f"Measured on {held.get('date', 'a day unknown')}: {', '.join(told)}{machine}.")
    else:
        said.append("Date, versions and hardware were not recorded.")
    return said


def _compared(document: Comparison) -> str:
    done, open_ = len(document.rows), len(document.unfinished)
    rest = f", {open_} not finished" if open_ else ""
    return (
        f"{_count(done, 'row')} finished{rest}. {document.budget}. Val chose the weights of every "
        "seed; test was read once."
    )


def _asked(document: Evaluation) -> str:
    first = document.rows[0]
    counts = Counter(cell.checkpoint for cell in document.rows)
    names = ", ".join(counts)
    revision = f" (weights {first.revision[:12]})" if first.revision and len(counts) == 1 else ""
    layouts = sorted({(cell.ways, cell.shots) for cell in document.rows})
    sizes = ", ".join(f"{ways}-way {shots}-shot" for ways, shots in layouts)
    labels = f"the {len(first.labels)} {document.split} labels"
    of = f"{labels} of {document.measured.data}" if document.measured.data else labels
    if document.listed is not None:
        return (
            f"{names}{revision}, asked the episodes of the list {document.listed}, {sizes}, "
            f"on {of}."
        )
    return (
        f"{names}{revision}, asked {document.episodes:,} drawn episodes each of {sizes}, "
        f"{_count(document.queries or 0, 'query', 'queries')} a label, seed {document.seed}, "
        f"on {of}."
    )


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or f'{one}s'}"
