"""The stage texts of a data set's labels: described in a file, or the template's."""

from collections.abc import Sequence
from pathlib import Path

from model.subactions import StageTexts, template_stages
from training.datasets import Dataset
from training.descriptions_file import read_descriptions, stages_of


def stage_texts(
    data: Dataset, splits: Sequence[str], file: Path | None
) -> dict[str, StageTexts] | None:
    """Return the stages of every label of some splits; None where labels are no names.

    Raises:
        InputError: the file cannot be read, or lacks a label.
    """
    if not data.named:
        return None
    labels = [label for split in splits for label in data.labels(split)]
    if file is not None:
        return stages_of(read_descriptions(file), labels, file)
    return {label: template_stages(label) for label in labels}
