"""The table of a comparison, from its finished rows as JSON has them."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

SPLITS = ("val", "test")


def markdown(rows: Sequence[Mapping[str, Any]], shots: Sequence[int], budget: str) -> str:
    """Write the table for people; a row that was read in two ways has a line for each."""
    heads = [f"{split} {count}-shot" for split in SPLITS for count in shots]
    titles = ["", "parameters", "best step", "seconds", *heads]
    written = [titles, ["---", *(["---:"] * (len(titles) - 1))]]
    for row in rows:
        for name, cells in read_ways(row).items():
            best = ", ".join(str(step) for step in row["best_steps"]) or "-"
            seconds = f"{statistics.fmean(row['seconds']):.0f}" if row["seconds"] else "-"
            figures = [figure(cells[split, count]) for split in SPLITS for count in shots]
            written.append([name, f"{row['trained_parameters']:,}", best, seconds, *figures])
    lines = [f"| {' | '.join(cells)} |" for cells in written]
    legend = (
        f"Budget: {budget}. Accuracy in percent, mean over seeds +- 95 % interval over seeds "
        "(over episodes). Seconds: the steps of one seed."
    )
    return "\n".join([*lines, "", legend, ""])


def read_ways(row: Mapping[str, Any]) -> dict[str, dict[tuple[str, int], Mapping[str, Any]]]:
    """Sort a row's figures by how it was read: as it is first, then without joint queries."""
    found: dict[str, dict[tuple[str, int], Mapping[str, Any]]] = {}
    own = row["test"][0]["query_context"], row["test"][0]["transductive"]
    for split in SPLITS:
        for cell in row[split]:
            name = row["name"]
            if (cell["query_context"], cell["transductive"]) != own:
                name += f", read with `{cell['query_context']}`"
            elif cell["transductive"]:
                name += " (transductive)"
            found.setdefault(name, {})[split, cell["shots"]] = cell
    return found


def figure(cell: Mapping[str, Any]) -> str:
    """Write one accuracy with its intervals."""
    seeds, episodes = cell["interval_seeds"], cell["interval_episodes"]
    over_seeds = "" if seeds is None else f" +- {seeds:.1f}"
    return f"{cell['accuracy']:.1f}{over_seeds} ({'-' if episodes is None else f'{episodes:.1f}'})"


def lines(row: Mapping[str, Any]) -> dict[str, list[tuple[float, float, float]]]:
    """Return a row's test accuracies over shots; intervals over seeds where there are several."""
    found: dict[str, list[tuple[float, float, float]]] = {}
    for name, cells in read_ways(row).items():
        for (split, shots), cell in sorted(cells.items()):
            if split == "test":
                reach = cell["interval_seeds"] or cell["interval_episodes"] or 0.0
                found.setdefault(name, []).append((shots, cell["accuracy"], reach))
    return found
