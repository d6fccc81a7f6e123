"""The standard few-shot split files: train.txt, val.txt, test.txt of `<split><id>//<path>`.

A class id starts anew in each split. The class is the folder in the path (HMDB51, UCF101,
Kinetics-100). Something-Something's lines have a video number alone, with one or two `/` before it,
and its classes need names from elsewhere. Names are joined by class id within one setting, or by
video id; never by position, and never across settings: SSv2-Full and SSv2-Small number different
classes (model/papers/protocol.md, sections 1 and 2).
"""

import csv
import json
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from training.data.listings import SPLITS, ListedClip, Split, source_group, stem
from training.errors import InputError

LINE = re.compile(r"([a-z]+)(\d+)//?([^/].*)")
BESIDE = ("classes.csv", "classes.txt", "classes.json")  # looked for beside the split files
NAME_COLUMNS = ("split", "id", "name")

ClassKey = tuple[str, int]  # split and id, which starts anew in each split


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
        names: Names of classes, as `read_names` reads them, instead of those beside.

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


def find_names(folder: Path) -> Path | None:
    """Return the file of class names beside split files, if there is one."""
    return next((folder / name for name in BESIDE if (folder / name).is_file()), None)


def read_names(source: Path, classes: Mapping[ClassKey, Collection[str]]) -> dict[ClassKey, str]:
    """Return the name of every class.

    Args:
        source: A CSV with the columns split, id, name; the data set's own label JSON, a list of
            `{"id": "78687", "template": "Holding [something]"}`; or a folder of such JSON files.
        classes: The video ids of each class.

    Raises:
        InputError: The source cannot be read, leaves a class without a name, or contradicts itself.
    """
    by_video = source.is_dir() or source.suffix.lower() == ".json"
    names = _by_video(source, classes) if by_video else _by_class(source)
    unnamed = sorted(key for key in classes if key not in names)
    if unnamed:
        split, number = unnamed[0]
        raise InputError(
            f"{source} names {len(classes) - len(unnamed)} of {len(classes)} classes, not "
            f"{split}{number}; complete it, or leave it away to train without text."
        )
    return {key: names[key] for key in classes}


def _by_class(source: Path) -> dict[ClassKey, str]:
    try:
        with source.open(newline="", encoding="utf-8-sig") as lines:
            rows = list(csv.DictReader(lines))
        return {(row["split"], int(row["id"])): row["name"].strip() for row in rows if row["name"]}
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{source} is no list of names ({error}); write a CSV with the columns "
            f"{', '.join(NAME_COLUMNS)}."
        ) from error


def _by_video(source: Path, classes: Mapping[ClassKey, Collection[str]]) -> dict[ClassKey, str]:
    templates = _templates(source)
    names: dict[ClassKey, str] = {}
    for (split, number), videos in classes.items():
        found = sorted({templates[video] for video in videos if video in templates})
        if len(found) > 1:
            raise InputError(
                f"{source} has several names for class {split}{number}, {found[0]!r} and "
                f"{found[1]!r}; give the labels of the data set that the split files belong to."
            )
        if found:
            names[split, number] = found[0]
    return names


def _templates(source: Path) -> dict[str, str]:
    """Return the name of each video of the label JSON files: its template without brackets."""
    if not source.is_dir():
        return _entries(source, _load(source))
    files = sorted(source.glob("*.json"))
    found: dict[str, str] = {}
    for file in files:
        loaded = _load(file)
        if isinstance(loaded, list):  # the release's labels.json is a table of numbers
            found |= _entries(file, loaded)
    return found


def _load(file: Path) -> object:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{file} cannot be read as JSON ({error}); give the label file again."
        ) from error


def _entries(file: Path, loaded: object) -> dict[str, str]:
    if not isinstance(loaded, list) or not all(isinstance(entry, dict) for entry in loaded):
        raise InputError(
            f"{file} is no list of labels; it should read "
            '[{"id": "78687", "template": "Holding [something]"}, ...].'
        )
    return {
        str(entry["id"]): re.sub(r"[\[\]]", "", str(entry["template"])).strip()
        for entry in loaded
        if "id" in entry and entry.get("template")  # the test file of the release has no labels
    }
