"""Names of classes that split files only number, as Something-Something's do.

Names are joined by class id within one setting, or by video id; never by position, and never
across settings: SSv2-Full and SSv2-Small number different classes (specs/methods-1, 3.1, 6.9 1b).
"""

import csv
import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from training.errors import InputError

BESIDE = ("classes.csv", "classes.txt", "classes.json")  # looked for beside the split files
COLUMNS = ("split", "id", "name")

ClassKey = tuple[str, int]  # split and id, which starts anew in each split


def find_names(folder: Path) -> Path | None:
    """Return the file of names beside split files, if there is one."""
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
            f"{', '.join(COLUMNS)}."
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
