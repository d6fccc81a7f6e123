"""Labelled clips for calibration: a folder of `<label>/<clip>` or an index.csv."""

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np

from model.errors import ClipError, ExportError
from model.media.container import MediaLimits
from model.media.video import read_clip

LEAST = 4  # clips of a label: half to calibrate, half to measure
SUFFIXES = {".mp4", ".mov", ".webm", ".mkv", ".avi"}


def labelled_files(source: Path) -> dict[str, list[Path]]:
    """List clips by label, both sorted.

    Args:
        source: A folder of `<label>/<clip>`, or a CSV file with columns `path` and `label`.

    Raises:
        ExportError: A CSV that is not there or lacks a column.
    """
    if source.suffix == ".csv":
        try:
            rows = list(csv.DictReader(source.read_text(encoding="utf-8").splitlines()))
            pairs = [(row["label"], source.parent / row["path"]) for row in rows]
        except (OSError, KeyError) as error:
            raise ExportError(f"{source} has no columns path and label ({error!r}).") from error
    else:
        files = sorted(source.glob("*/*"))
        pairs = [(file.parent.name, file) for file in files if file.suffix.lower() in SUFFIXES]
    found: dict[str, list[Path]] = defaultdict(list)
    for label, file in sorted(pairs):
        found[label].append(file)
    return dict(found)


def read_labelled(
    files: dict[str, list[Path]], *, most: int, frames: int, size: int
) -> dict[str, list[np.ndarray]]:
    """Read the first clips of the first labels; damaged ones are left out.

    Args:
        files: From `labelled_files`.
        most: Clips in all, about.
        frames: T.
        size: Side of the frames, pixels.

    Raises:
        ExportError: Fewer than two labels of four clips: two for calibration, two to measure.
    """
    each = max(LEAST, most // max(1, len(files)))
    clips: dict[str, list[np.ndarray]] = {}
    for label in list(files)[: max(2, most // each)]:
        read: list[np.ndarray] = []
        for file in files[label]:
            if len(read) == each:
                break
            try:
                clip = read_clip(file, frames=frames, size=size, limits=MediaLimits())
            except ClipError:
                continue
            read.append(clip.frames_THWC)
        if len(read) >= LEAST:
            clips[label] = read
    if len(clips) < 2:
        raise ExportError(
            f"{len(clips)} labels have {LEAST} readable clips or more; calibration needs two such "
            "labels, as <label>/<clip> or in a CSV of path and label."
        )
    return clips
