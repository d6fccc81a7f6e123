"""Picture of a training: loss and accuracies over its steps as PNG, drawn without a display."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

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


def save(figure: Figure, file: Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    write_aside(file, buffer.getvalue())
