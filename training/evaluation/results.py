"""Results of evaluations written out: lines for people, JSON rows, and a comparison's table."""

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.evaluation.examination import Layout, Result, Setting
from training.evaluation.tallies import Estimate, Tally, over_episodes, over_seeds

SPLITS = ("val", "test")  # of a comparison


def seeds_of(results: Iterable[Result]) -> dict[Setting, list[Result]]:
    """Gather the results of each setting, one a seed."""
    found: dict[Setting, list[Result]] = defaultdict(list)
    for result in results:
        found[result.setting].append(result)
    return dict(found)


def row(result: Result) -> dict[str, object]:
    """Write a result for the JSON document."""
    return {
        "checkpoint": result.checkpoint,
        "revision": result.revision,
        **_layout(result.setting),
        **_accuracy(result.tally),
        "labels_with_text": result.labels_with_text,
        "trained": result.trained,
        **_detail(result.tally),
    }


def seeds_row(setting: Setting, results: Sequence[Result]) -> dict[str, object]:
    """Write the seeds of one setting for the JSON document: their mean, and two intervals."""
    tally = Tally.over_seeds([result.tally for result in results])
    seeds = mean_of_seeds(results)
    return {
        "checkpoints": [result.checkpoint for result in results],
        **_layout(setting),
        "seeds": seeds.count,
        "accuracy": rounded(seeds.mean),
        "interval_seeds": rounded(seeds.interval),
        "interval_episodes": rounded(tally.accuracy.interval),
        **_detail(tally),
    }


def compared_row(setting: Setting, results: Sequence[Result]) -> dict[str, object]:
    """Write the seeds of one setting, with the shares of episodes that other rows are paired to."""
    tally = Tally.over_seeds([result.tally for result in results])
    shares = [rounded(share, 4) for share in tally.shares]
    return seeds_row(setting, results) | {"shares": shares}


def compared(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a comparison's rows with their differences to the first one, in place of shares."""
    bases = {
        (split, cell["shots"]): cell
        for row in rows[:1]
        for split in SPLITS
        for cell in reversed(row[split])
    }
    found = []
    for row in rows:
        told = {
            split: [
                _told(rows[0]["name"], bases[split, cell["shots"]], cell) for cell in row[split]
            ]
            for split in SPLITS
        }
        found.append({**row, **told})
    return found


def _told(name: str, base: Mapping[str, Any], cell: Mapping[str, Any]) -> dict[str, Any]:
    told = {key: value for key, value in cell.items() if key != "shares"}
    if cell is not base and "shares" in cell and "shares" in base:  # earlier rows have none
        difference = np.subtract(cell["shares"], base["shares"]).tolist()
        told["beyond"] = beyond(name, over_episodes(difference))
    return told


def mean_of_seeds(results: Sequence[Result]) -> Estimate:
    """Estimate the accuracy of a setting over its seeds."""
    return over_seeds([result.tally.accuracy.mean for result in results])


def show(results: Sequence[Result]) -> None:
    """Print the figures for people."""
    for result in results:
        found = result.tally.accuracy
        figure = f"{found.mean:.1f} +- {found.interval:.1f} %"
        print(f"{result.checkpoint}: {result.setting}: {figure}")
        classes = [f"{label} {share:.1f}" for label, share in result.tally.by_class.items()]
        print(f"    by class: {', '.join(classes)}")
    for setting, alike in seeds_of(results).items():
        if len(alike) > 1:
            seeds, joined = mean_of_seeds(alike), Tally.over_seeds([one.tally for one in alike])
            print(
                f"{seeds.count} seeds: {setting}: {seeds.mean:.1f} +- {seeds.interval:.1f} % over "
                f"seeds, +- {joined.accuracy.interval:.1f} over episodes"
            )


def rounded(value: float, digits: int = 2) -> float | None:
    """Round for JSON, which knows no NaN."""
    return round(value, digits) if math.isfinite(value) else None


def _layout(setting: Setting) -> dict[str, object]:
    return {
        "ways": setting.layout.ways,
        "shots": setting.layout.shots,
        "query_context": setting.query_context,
        "transductive": setting.transductive,
    }


def _accuracy(tally: Tally) -> dict[str, object]:
    found = tally.accuracy
    return {
        "accuracy": rounded(found.mean),
        "interval": rounded(found.interval),
        "episodes": found.count,
    }


def _detail(tally: Tally) -> dict[str, object]:
    found: dict[str, object] = {
        "by_class": {label: rounded(share, 1) for label, share in tally.by_class.items()},
        "class_intervals": {label: rounded(w, 1) for label, w in tally.class_intervals.items()},
        "confusion": _nested(tally.confusion, 1),
        "answered": tally.answered_NN.tolist(),
        "asked": tally.asked_NN.tolist(),
    }
    if (stages := tally.stages) is not None:
        own, others = _nested(stages.own, 3), _nested(stages.others, 3)
        found["stages"] = {"own": own, "others": others}
    return found


def _nested(values: NDArray[np.float64], digits: int) -> list[list[float | None]]:
    return [[rounded(value, digits) for value in row] for row in values.tolist()]


def beyond(base: str, estimate: Estimate) -> dict[str, object]:
    """Write a difference to a base that answered the same episodes."""
    mean, interval = rounded(estimate.mean), rounded(estimate.interval)
    return {"base": base, "mean": mean, "interval": interval, "episodes": estimate.count}


def document(results: Sequence[Result]) -> dict[str, object]:
    """Write results for the JSON document: each, then the means over seeds.

    The first setting of a layout is the base, and the others have their difference to it.
    """
    settings = seeds_of(results)
    bases: dict[Layout, Setting] = {}
    for setting in settings:
        bases.setdefault(setting.layout, setting)
    joined = {
        setting: Tally.over_seeds([one.tally for one in alike])
        for setting, alike in settings.items()
    }

    def with_difference(
        written: dict[str, object], setting: Setting, tally: Tally
    ) -> dict[str, object]:
        base = bases[setting.layout]
        if setting == base:
            return written
        name = f"{settings[base][0].checkpoint}, {base.query_context}"
        return written | {"beyond": beyond(name, tally.beyond(joined[base]))}

    return {
        "rows": [with_difference(row(one), one.setting, one.tally) for one in results],
        "over_seeds": [
            with_difference(seeds_row(setting, alike), setting, joined[setting])
            for setting, alike in settings.items()
            if len(alike) > 1
        ],
    }


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
