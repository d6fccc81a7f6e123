"""The standard few-shot split files: train.txt, val.txt, test.txt of `<split><id>//<path>`.

A class id starts anew in each split. The class is the folder in the path (HMDB51, UCF101,
Kinetics-100); Something-Something's lines have a video number alone, with one or two `/` before
it, and its classes need names from elsewhere (specs/methods-1, 3.1 and 3.2).
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from training.data.class_names import ClassKey, find_names, read_names
from training.data.listings import SPLITS, ListedClip, Split, source_group, stem
from training.errors import InputError

LINE = re.compile(r"([a-z]+)(\d+)//?([^/].*)")


@dataclass(frozen=True, slots=True)
class SplitLine:
    """One line: the class's id within its split, and the clip's path without the root."""

    split: Split
    class_id: int
    path: str


def is_split_folder(folder: Path) -> bool:
    """Tell whether a folder holds standard split files."""
    return any((folder / f"{split}.txt").is_file() for split in SPLITS)


def read_split_files(folder: Path) -> tuple[SplitLine, ...]:
    """Return the lines of a folder's split files.

    Raises:
        InputError: A file cannot be read, or a line has another form or belongs elsewhere.
    """
    files = [(split, folder / f"{split}.txt") for split in SPLITS]
    return tuple(line for split, file in files if file.is_file() for line in _lines(file, split))


def _lines(file: Path, split: Split) -> list[SplitLine]:
    try:
        rows = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read ({error}); give it again.") from error
    found = []
    for number, row in enumerate(rows, start=1):
        if not row.strip():
            continue
        parts = LINE.fullmatch(row.strip())
        if parts is None or parts[1] != split:
            raise InputError(
                f"Line {number} of {file} is {row[:80]!r}; it should read "
                f"{split}<class id>//<path of a clip>."
            )
        found.append(SplitLine(split, int(parts[2]), parts[3]))
    return found


def list_split_files(folder: Path, names: Path | None) -> tuple[tuple[ListedClip, ...], bool]:
    """Return the clips of split files, and whether their labels are names.

    Args:
        folder: Holds train.txt, val.txt, test.txt, and perhaps a file of names.
        names: Names of classes (see `training.data.class_names`), instead of those beside.

    Raises:
        InputError: A file cannot be used, or two classes of a split have one name.
    """
    lines = read_split_files(folder)
    members: dict[ClassKey, list[str]] = defaultdict(list)
    for line in lines:
        members[line.split, line.class_id].append(line.path)
    source = names or find_names(folder)
    if source is None:
        labels = {key: _folder_name(folder, key, paths) for key, paths in members.items()}
    else:
        videos = {key: [_video(path) for path in paths] for key, paths in members.items()}
        labels = dict(read_names(source, videos))
    _check_distinct(folder, labels)
    named = all(label is not None for label in labels.values())
    clips = []
    for line in lines:
        label = labels[line.split, line.class_id] or f"{line.split}{line.class_id}"
        group = source_group(line.path, label)
        clips.append(ListedClip(line.path, label, line.split, group))
    return tuple(clips), named


def _video(path: str) -> str:
    return stem(PurePosixPath(path).name)


def _folder_name(folder: Path, key: ClassKey, paths: Sequence[str]) -> str | None:
    """Return the one folder that holds a class's clips; None where paths have no folder."""
    found = sorted({PurePosixPath(path).parent.name for path in paths})
    if len(found) > 1:
        raise InputError(
            f"{folder} has clips of {found[0]!r} and of {found[1]!r} in class {key[0]}{key[1]}; "
            "give each class an id of its own."
        )
    return found[0] or None


def _check_distinct(folder: Path, labels: dict[ClassKey, str | None]) -> None:
    seen: dict[tuple[str, str], int] = {}
    for (split, number), label in labels.items():
        if label is None:
            continue
        if (split, label) in seen:
            raise InputError(
                f"{folder} has the label {label!r} twice, as {split}{seen[split, label]} and "
                f"{split}{number}; give each class a name of its own."
            )
        seen[split, label] = number
