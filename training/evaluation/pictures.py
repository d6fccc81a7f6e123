"""Pictures of results: curves and confusion matrices as PNG, drawn without a display."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from training.evaluation.examination import Result, Setting
from training.evaluation.results import mean_of_seeds, seeds_of
from training.evaluation.tallies import Tally
from training.run_folder import write_aside

mpl.use("Agg")
SMOOTH = 0.95  # of the loss curve's running mean


def draw_curve(rows: Sequence[Mapping[str, float]], file: Path) -> None:
    """Draw loss and val accuracies over steps.

    Args:
        rows: Of `history.csv`: `step`, `loss`, and `val_K` where it was validated.
        file: PNG.
    """
    figure = Figure(figsize=(7, 4), layout="constrained")
    losses = figure.subplots()
    steps = [row["step"] for row in rows if "loss" in row]
    loss = [row["loss"] for row in rows if "loss" in row]
    losses.plot(steps, loss, color="0.8", linewidth=0.8)
    losses.plot(steps, running_mean(loss), color="0.2", label="loss")
    losses.set(xlabel="step", ylabel="loss")
    accuracies = losses.twinx()
    names = sorted({name for row in rows for name in row if name.startswith("val_")})
    for name in names:
        points = [(row["step"], row[name]) for row in rows if name in row]
        label = f"val {name.removeprefix('val_')}-shot"
        accuracies.plot(*zip(*points, strict=True), marker="o", markersize=3, label=label)
    accuracies.set_ylabel("accuracy, %")
    figure.legend(loc="outside upper center", ncols=1 + len(names))
    save(figure, file)


def running_mean(values: Sequence[float]) -> list[float]:
    """Return the exponential running mean, unbiased at the start."""
    means, mean, weight = [], 0.0, 0.0
    for value in values:
        mean = SMOOTH * mean + (1 - SMOOTH) * value
        weight = SMOOTH * weight + (1 - SMOOTH)
        means.append(mean / weight)
    return means


def draw_confusion(labels: Sequence[str], share_NN: NDArray[np.float64], file: Path) -> None:
    """Draw which label [row] was answered by which [column], shares of the row in percent."""
    side = 2.5 + 0.45 * len(labels)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(share_NN, cmap="Blues", vmin=0, vmax=100)
    axes.set_xticks(range(len(labels)), labels, rotation=60, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(labels)), labels)
    axes.set(xlabel="answered", ylabel="true", title="% of queries, where both were in the task")
    for row, column in np.ndindex(share_NN.shape):
        value = share_NN[row, column]
        if np.isfinite(value):
            colour = "white" if value > 55 else "black"
            text = f"{value:.0f}"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    save(figure, file)


def draw_lines(
    lines: Mapping[str, Sequence[tuple[float, float, float]]],
    file: Path,
    *,
    across: str,
    up: str = "accuracy, %",
) -> None:
    """Draw named lines of (place, mean, half interval) with error bars."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, points in lines.items():
        places, means, intervals = zip(*points, strict=True)
        axes.errorbar(places, means, yerr=intervals, marker="o", capsize=3, label=name)
    axes.set(xlabel=across, ylabel=up)
    axes.grid(visible=True, color="0.9")
    axes.legend()
    save(figure, file)


def save(figure: Figure, file: Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    write_aside(file, buffer.getvalue())


def draw_results(results: Sequence[Result], labels: Sequence[str], folder: Path) -> list[Path]:
    """Draw a confusion matrix of each setting, and the curve over ways where there are several."""
    pictures: list[Path] = []
    lines: dict[str, list[tuple[float, float, float]]] = {}
    for setting, found in seeds_of(results).items():
        tally, layout = Tally.over_seeds([result.tally for result in found]), setting.layout
        name = f"{layout.ways}way-{layout.shots}shot-{setting.query_context}"
        pictures.append(folder / f"confusion-{setting.method}-{name}.png")
        draw_confusion(labels, tally.confusion, pictures[-1])
        lines.setdefault(line_name(setting), []).append((layout.ways, *reach(found, tally)))
    if len({result.setting.layout.ways for result in results}) > 1:
        pictures.append(folder / "ways.png")
        ordered = {name: sorted(points) for name, points in lines.items()}
        draw_lines(ordered, pictures[-1], across="ways")
    return pictures


def line_name(setting: Setting) -> str:
    """Name a line of the curve over ways."""
    joint = ", transductive" if setting.transductive else ""
    return f"{setting.method}, {setting.layout.shots}-shot, {setting.query_context}{joint}"


def reach(found: Sequence[Result], tally: Tally) -> tuple[float, float]:
    """Return mean and half interval: over seeds where there are several, else over episodes."""
    seeds = mean_of_seeds(found)
    return seeds.mean, seeds.interval if seeds.count > 1 else tally.accuracy.interval
