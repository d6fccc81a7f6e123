"""The stage texts of a data set's labels: described in a file, or the template's."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from model.text import StageTexts, spoken, template_stages
from training.data.datasets import Dataset
from training.data.descriptions_file import read_descriptions, stages_of


def stage_texts(
    data: Dataset, splits: Iterable[str], file: Path | None
) -> dict[str, StageTexts] | None:
    """Return the stages of the labels of some splits; None where labels are no names.

    A data set that was joined to others and has no label in the file is left to video alone.

    Raises:
        InputError: the file cannot be read, or describes a part of a data set's labels.
    """
    if not data.named:
        return None
    labels: dict[str, set[str]] = defaultdict(set)
    for split in splits:
        for clip in data.split(split):
            labels[clip.dataset].add(clip.label)
    if file is None:
        return {label: template_stages(label) for own in labels.values() for label in sorted(own)}
    held = read_descriptions(file)
    described = [
        label
        for own in labels.values()
        if len(labels) == 1 or any(spoken(label) in held for label in own)
        for label in sorted(own)
    ]
    return stages_of(held, described, file)
