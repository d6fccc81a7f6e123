"""Folders of clips, `<label>/<clip>`, as `training.data.datasets` has them.

An `index.csv` (path, label, split, source_group) in the folder or above it says which clips come
from one recording: support and query clips of a task are never taken from the same one, since a
clip is easily recognised by its own room. Without an index, they are different files.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from training.data.datasets import LabelledClip
from training.data.listings import VIDEOS, read_index


class ClipFolderError(Exception):
    """The folder does not hold what a task needs."""


def read_clips(folder: Path, labels: Sequence[str], split: str) -> list[LabelledClip]:
    """List the clips of the wanted labels: those named, or of the index's split, or all.

    Raises:
        ClipFolderError: There is no such folder, no clip in it, not such a label, or only one.
        InputError: The index lacks a column.
    """
    if not folder.is_dir():
        raise ClipFolderError(f"{folder} is no folder; give one that holds <label>/<clip>.")
    indices = (folder / "index.csv", folder.resolve().parent / "index.csv")
    index = next((path for path in indices if path.is_file()), None)
    clips, in_split = _indexed(folder, index, split) if index else (_unindexed(folder), set())
    if not clips:
        raise ClipFolderError(
            f"{folder} holds no clips; put them at <label>/<clip> ({', '.join(sorted(VIDEOS))})."
        )
    known = {clip.label for clip in clips}
    if unknown := sorted(set(labels) - known):
        raise ClipFolderError(f"No clips of {unknown[0]!r}; there are {', '.join(sorted(known))}.")
    wanted = set(labels) or in_split or known
    if len(wanted) < 2:
        raise ClipFolderError(f"{len(wanted)} label is not enough for a task; give at least 2.")
    return sorted((c for c in clips if c.label in wanted), key=lambda clip: str(clip.path))


def _indexed(folder: Path, index: Path, split: str) -> tuple[list[LabelledClip], set[str]]:
    """Read the rows of an index whose clips lie in the folder, and the labels of its split."""
    inside = folder.resolve()
    rows = read_index(index)
    clips = [
        LabelledClip(index.parent / row["path"], row["label"], row["source_group"]) for row in rows
    ]
    found = [clip for clip in clips if clip.path.resolve().is_relative_to(inside)]
    return found, {row["label"] for row in rows if row["split"] == split}


def _unindexed(folder: Path) -> list[LabelledClip]:
    """Take each folder's name as the label of its clips, each file as a recording."""
    return [
        LabelledClip(path, path.parent.name, str(path))
        for path in folder.glob("*/*")
        if path.suffix.lower() in VIDEOS
    ]


def most_queries(clips: Sequence[LabelledClip], shots: int) -> int:
    """Count the query clips that every label has beside its support clips; at least 1."""
    return max(1, min(Counter(clip.label for clip in clips).values()) - shots)
