"""`python -m training.calibrate` end to end on real clips: it fits, writes, reports and refuses."""

import json
from pathlib import Path

import pytest

from model.backbones.sources import folder_of
from model.calibration.fitted import CALIBRATION
from model.checkpoint import load_recognizer
from tests.training.conftest import TEACHER
from training.calibrate import main

SMALL = ["--ways", "2", "--shots", "1", "2", "--queries", "2", "--episodes", "4"]


def last_line(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    return dict(json.loads(capsys.readouterr().out.splitlines()[-1]))


def test_the_packaged_checkpoint_is_not_written_over(
    indexed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packaged = folder_of("compact")
    assert packaged is not None
    before = (packaged / CALIBRATION).read_bytes()
    assert main(["--data", str(indexed), *SMALL, "--device", "cpu"]) == 2
    assert "--out" in capsys.readouterr().err
    assert (packaged / CALIBRATION).read_bytes() == before


def test_a_bare_backbone_becomes_a_checkpoint_with_probabilities(
    indexed: Path, teacher_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = ["--backbone-weights", str(teacher_weights)]
    common = ["--data", str(indexed), *weights, *SMALL, "--device", "cpu"]
    out = tmp_path / "calibrated"
    assert main(["--checkpoint", TEACHER, *common]) == 2
    assert "--out" in capsys.readouterr().err
    assert main(["--checkpoint", TEACHER, *common, "--out", str(out)]) == 0
    told = last_line(capsys)
    assert "mean" not in told
    served = load_recognizer(str(out), weights=teacher_weights)
    assert [row.shots for row in served.calibration.video] == [1, 2]
    assert "train and val classes" in served.calibration.source
    before = (out / CALIBRATION).read_bytes()
    assert main(["--checkpoint", str(out), *common, "--report", "test"]) == 0
    (one, two) = last_line(capsys)["rows"]  # type: ignore[misc]
    assert (one["shots"], two["shots"], one["ways"]) == (1, 2, 2)
    assert one["scale"] == served.calibration.video[0].scale
    assert len(one["auroc"]) == 2
    assert (out / CALIBRATION).read_bytes() == before
