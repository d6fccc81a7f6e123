"""Folders of clips, `<label>/<clip>`, and the tasks drawn from them.

An `index.csv` (path, label, split, source_group) in the folder or above it says which clips come
from one recording: support and query clips of a task are never taken from the same one, since a
clip is easily recognised by its own room. Without an index, they are different files.
"""

import csv
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

SUFFIXES = {".mp4", ".mov", ".m4v", ".webm", ".mkv", ".avi"}
DRAWS = 50  # tries for one label before it is said to have too few recordings


class ClipFolderError(Exception):
    """The folder does not hold what a task needs."""


@dataclass(frozen=True, slots=True)
class LabelledClip:
    """One clip of a folder."""

    path: Path
    label: str
    group: str  # the recording it was cut from; its own path where nobody knows
    split: str  # of the index; "" without one


@dataclass(frozen=True, slots=True)
class DrawnTask:
    """Support and query clips of one task."""

    support: dict[str, list[LabelledClip]]
    queries: list[LabelledClip]


def read_folder(folder: Path) -> list[LabelledClip]:
    """List a folder's clips, by its index where there is one.

    Raises:
        ClipFolderError: There is no such folder, or no clip in it.
    """
    if not folder.is_dir():
        raise ClipFolderError(f"{folder} is no folder; give one that holds <label>/<clip>.")
    index = next((path for path in _indices(folder) if path.is_file()), None)
    clips = _indexed(folder, index) if index else _unindexed(folder)
    if not clips:
        raise ClipFolderError(
            f"{folder} holds no clips; put them at <label>/<clip> ({', '.join(sorted(SUFFIXES))})."
        )
    return sorted(clips, key=lambda clip: str(clip.path))


def _indices(folder: Path) -> Iterable[Path]:
    return (folder / "index.csv", folder.resolve().parent / "index.csv")


def _indexed(folder: Path, index: Path) -> list[LabelledClip]:
    """Read the rows of an index whose clips lie in the folder."""
    with index.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    wanted = {"path", "label", "split", "source_group"}
    if rows and not wanted <= set(rows[0]):
        raise ClipFolderError(f"{index} lacks a column; its first line must name {sorted(wanted)}.")
    clips = [
        LabelledClip(index.parent / row["path"], row["label"], row["source_group"], row["split"])
        for row in rows
    ]
    inside = folder.resolve()
    return [clip for clip in clips if clip.path.resolve().is_relative_to(inside)]


def _unindexed(folder: Path) -> list[LabelledClip]:
    """Take each folder's name as the label of its clips."""
    return [
        LabelledClip(path, path.parent.name, str(path), "")
        for path in folder.glob("*/*")
        if path.suffix.lower() in SUFFIXES
    ]


def choose_labels(
    clips: Sequence[LabelledClip], labels: Sequence[str], split: str
) -> dict[str, list[LabelledClip]]:
    """Group the clips of the wanted labels: those named, or of the split, or all.

    Raises:
        ClipFolderError: A named label is not there, or fewer than two labels are left.
    """
    by_label: dict[str, list[LabelledClip]] = defaultdict(list)
    for clip in clips:
        by_label[clip.label].append(clip)
    unknown = sorted(set(labels) - set(by_label))
    if unknown:
        raise ClipFolderError(f"No clips of {unknown[0]!r}; there are {', '.join(by_label)}.")
    in_split = {clip.label for clip in clips if clip.split == split}
    chosen = {label: by_label[label] for label in sorted(set(labels) or in_split or by_label)}
    if len(chosen) < 2:
        raise ClipFolderError(f"{len(chosen)} label is not enough for a task; give at least 2.")
    return chosen


def draw_task(
    by_label: dict[str, list[LabelledClip]],
    rng: random.Random,
    *,
    ways: int,
    shots: int,
    queries: int,
) -> DrawnTask:
    """Draw one task: labels, their support clips, and query clips from other recordings.

    Args:
        by_label: Clips to draw from.
        rng: Source of chance.
        ways: Labels of the task; all when there are fewer.
        shots: Support clips of a label.
        queries: Query clips of a label, at most.

    Raises:
        ClipFolderError: A label has too few clips or recordings.
    """
    labels = rng.sample(sorted(by_label), min(ways, len(by_label)))
    support: dict[str, list[LabelledClip]] = {}
    asked: list[LabelledClip] = []
    for label in labels:
        support[label], others = _draw_label(label, by_label[label], rng, shots)
        asked += others[:queries]
    rng.shuffle(asked)
    return DrawnTask(support, asked)


def _draw_label(
    label: str, clips: list[LabelledClip], rng: random.Random, shots: int
) -> tuple[list[LabelledClip], list[LabelledClip]]:
    """Split a label's clips into support and what may be asked."""
    for _ in range(DRAWS):
        shuffled = rng.sample(clips, len(clips))
        support = shuffled[:shots]
        used = {clip.group for clip in support}
        others = [clip for clip in shuffled[shots:] if clip.group not in used]
        if len(support) == shots and others:
            return support, others
    raise ClipFolderError(
        f"{label!r} has {len(clips)} clips from {len({clip.group for clip in clips})} recordings, "
        f"too few for {shots} support clips and a query from another one; give more or fewer shots."
    )
