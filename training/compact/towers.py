"""The towers that pretraining starts from: a frozen teacher, and a student trained before."""

from pathlib import Path

from model.backbones.timm import TimmImageTower
from model.checkpoint import load_recognizer
from training.errors import InputError


def open_teacher(source: str, weights: Path | None) -> tuple[TimmImageTower, str]:
    """Load the frozen teacher and the fingerprint of its weights.

    Raises:
        InputError: not a timm model.
        BackboneError: it cannot be had, or the weights do not fit.
    """
    if not source.startswith("timm:"):
        raise InputError(f"--teacher is {source!r}; a teacher is timm:NAME.")
    recognizer = load_recognizer(source, weights=weights)
    tower = recognizer.video.tower
    assert isinstance(tower, TimmImageTower)
    return tower, recognizer.fingerprint


def start_from(student: TimmImageTower, folder: Path) -> None:
    """Give the student the image tower of an earlier compact checkpoint.

    Raises:
        InputError: a tower of other sizes.
    """
    earlier = load_recognizer(str(folder)).video.tower.model.state_dict()
    try:
        student.model.load_state_dict(earlier)
    except RuntimeError as error:
        raise InputError(
            f"The image tower in {folder} has other sizes than the student; give its --width, "
            "--depth and --heads, or leave --start out."
        ) from error
