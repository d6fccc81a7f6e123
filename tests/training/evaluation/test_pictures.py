"""The picture of a training, and the mean that smooths its curve."""

import struct
from pathlib import Path

import pytest

from training.evaluation import pictures
from training.evaluation.pictures import draw_curve, running_mean


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
