"""Pictures of results, and the mean that smooths a curve."""

import struct
from pathlib import Path

import numpy as np
import pytest

from training.evaluation import pictures
from training.evaluation.pictures import draw_confusion, draw_curve, draw_lines, running_mean


def size_of(file: Path) -> tuple[int, int]:
    """Read a PNG's width and height, pixels."""
    content = file.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert content.endswith(b"IEND\xaeB`\x82")
    width, height = struct.unpack(">II", content[16:24])
    return width, height


def test_the_running_mean_is_unbiased_at_the_start() -> None:
    keep = pictures.SMOOTH
    means = running_mean([4.0, 2.0, 0.0])
    assert means[0] == pytest.approx(4)
    assert means[1] == pytest.approx((keep * 4 + 2) / (keep + 1))
    assert means[2] == pytest.approx((keep**2 * 4 + keep * 2) / (keep**2 + keep + 1))
    assert running_mean([3.0] * 50) == pytest.approx([3.0] * 50)
    assert running_mean([]) == []


def test_a_curve_is_a_picture_of_its_size(tmp_path: Path) -> None:
    rows = [{"step": 0, "val_1": 40.0}, {"step": 1, "loss": 1.0}]
    draw_curve([*rows, {"step": 2, "loss": 0.5, "val_1": 50.0}], tmp_path / "curve.png")
    assert size_of(tmp_path / "curve.png") == (840, 480)


def test_a_confusion_matrix_grows_with_its_labels_and_leaves_what_never_met_empty(
    tmp_path: Path,
) -> None:
    for count in (2, 12):
        share = np.full((count, count), 100 / count)
        share[0, 1] = np.nan
        labels = [f"label {number}" for number in range(count)]
        draw_confusion(labels, share, tmp_path / f"{count}.png")
    small, large = size_of(tmp_path / "2.png"), size_of(tmp_path / "12.png")
    assert small == (408, 408)
    assert large == (948, 948)


def test_lines_with_and_without_an_interval_are_drawn(tmp_path: Path) -> None:
    lines = {"one": [(1, 50.0, 2.0), (5, 60.0, 1.0)], "a single seed": [(1, 40.0, float("nan"))]}
    draw_lines(lines, tmp_path / "new" / "lines.png", across="shots")
    assert size_of(tmp_path / "new" / "lines.png") == (840, 540)
