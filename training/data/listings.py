"""What a data set lists, before any file is looked for: an index.csv, or folders `<label>/<clip>`.

The standard split files are read by `training.data.split_files`.
"""

import csv
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, get_args

from training.errors import InputError

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
VIDEOS = frozenset({".mp4", ".webm", ".avi", ".mov", ".mkv", ".m4v"})
PICTURES = frozenset({".jpg", ".jpeg", ".png"})  # what a clip may be made of
COLUMNS = ("path", "label", "split", "source_group")
FAMILY = "family"  # a column that may be left out
LEAST_LABELS = 20  # of a folder that is divided by hash
LEAST_HELD_OUT = 5  # labels of val and of test each: one 5-way episode
HELD_OUT_SHARE = 0.15  # of the labels, for val and for test each

# HMDB51: <video>_<label>_<body>_<camera>_<persons>_<view>_<quality>_<number>; UCF101: group, clip.
_HMDB = re.compile(r"(.+)_[fhlu]_(?:cm|nm)_np\d+_(?:ba|fr|le|ri)_(?:bad|med|goo)_\d+")
_UCF = re.compile(r"v_(.+_g\d+)_c\d+")


@dataclass(frozen=True, slots=True)
class ListedClip:
    """One clip as its list has it.

    Args:
        name: Its path in the list, with `/`, relative to the root of the files.
        label: Its class.
        split: Where its class belongs.
        source_group: The recording it was cut from, or what stands for it.
        family: Of labels that belong in one episode; empty where all do.
    """

    name: str
    label: str
    split: Split
    source_group: str
    family: str = ""


def stem(name: str) -> str:
    """Return a file name without the suffix of a video; other dots stay."""
    path = PurePosixPath(name)
    return path.stem if path.suffix.lower() in VIDEOS else path.name


def source_group(name: str, label: str) -> str:
    """Return the recording that a clip was cut from, as far as its file name tells.

    HMDB51's and UCF101's names do; any other clip is a group of its own (Kinetics and Something-
    Something have one clip a recording).
    """
    own = stem(PurePosixPath(name).name)
    if found := _UCF.fullmatch(own):
        return found[1]
    if found := _HMDB.fullmatch(own):
        return found[1].removesuffix(f"_{label}")
    return name


def read_index(index: Path) -> list[dict[str, str]]:
    """Return the rows of an index.csv (path, label, split, source_group, perhaps family).

    Raises:
        InputError: no such file, a column is missing, or a row is too short.
    """
    try:
        with index.open(newline="", encoding="utf-8-sig") as lines:
            rows = list(csv.DictReader(lines))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{index} cannot be read ({error}); give an index.csv.") from error
    if not rows:
        raise InputError(f"{index} lists no clip; write one a line: {','.join(COLUMNS)}.")
    if missing := set(COLUMNS) - set(rows[0]):
        raise InputError(f"{index} has no column {sorted(missing)[0]!r}; add it.")
    for number, row in enumerate(rows, start=2):
        if empty := [name for name in COLUMNS if not row[name]]:
            raise InputError(f"Line {number} of {index} has no {empty[0]}; complete it.")
    return rows


def list_index(index: Path) -> tuple[ListedClip, ...]:
    """Return the clips of an index.csv.

    Raises:
        InputError: The file cannot be read, or a row's split is none.
    """
    clips = []
    for number, row in enumerate(read_index(index), start=2):
        split = next((known for known in SPLITS if known == row["split"]), None)
        if split is None:
            raise InputError(
                f"Line {number} of {index} has the split {row['split']!r}; use train, val or test."
            )
        family = row.get(FAMILY) or ""
        clips.append(ListedClip(row["path"], row["label"], split, row["source_group"], family))
    return tuple(clips)


def list_folder(folder: Path, *, seed: int = 0) -> tuple[ListedClip, ...]:
    """Return the clips of a folder of `<label>/<clip>`, or of `<split>/<label>/<clip>`.

    A clip is a video or a folder of pictures. Without split folders, labels are put in the order
    of their hashes: the first 15 % are test, the next 15 % val, at least 5 each, the others train.

    Args:
        folder: The folder.
        seed: Goes into the hashes; another one divides the labels otherwise.

    Raises:
        InputError: No label, a label without clips, or under 20 labels and no split folders.
    """
    names = _folders(folder)
    if not names:
        raise InputError(f"{folder} holds no folder; put clips at <label>/<clip>, or give a CSV.")
    if set(names) <= set(SPLITS):
        splits = [split for split in SPLITS if split in names]
        labelled = ((split, name) for split in splits for name in _folders(folder / split))
        return tuple(
            clip
            for split, label in labelled
            for clip in _list_label(folder, f"{split}/{label}", label, split)
        )
    divided = divide(names, seed, str(folder))
    return tuple(clip for name in names for clip in _list_label(folder, name, name, divided[name]))


def divide(labels: Sequence[str], seed: int, where: str) -> dict[str, Split]:
    """Give each label its split, by the order of the labels' hashes.

    Raises:
        InputError: under 20 labels.
    """
    if len(labels) < LEAST_LABELS:
        raise InputError(
            f"{where} has {len(labels)} labels, too few to divide them; give {LEAST_LABELS} or "
            "more, or put the label folders into train/, val/ and test/ yourself."
        )
    held_out = max(LEAST_HELD_OUT, round(HELD_OUT_SHARE * len(labels)))
    order = sorted(labels, key=lambda label: hashlib.sha256(f"{seed}:{label}".encode()).digest())
    splits: dict[str, Split] = dict.fromkeys(order, "train")
    splits |= dict.fromkeys(order[:held_out], "test")
    splits |= dict.fromkeys(order[held_out : 2 * held_out], "val")
    return splits


def has_pictures(folder: Path) -> bool:
    """Tell whether a folder holds a picture that a clip can be made of."""
    return any(PurePosixPath(entry.name).suffix.lower() in PICTURES for entry in visible(folder))


def visible(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Give the entries of a folder but hidden ones.

    Raises:
        InputError: The folder cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            yield from (entry for entry in entries if not entry.name.startswith("."))
    except OSError as error:
        raise InputError(f"{folder} cannot be read ({error.strerror}); give another.") from error


def _folders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in visible(folder) if entry.is_dir())


def _list_label(folder: Path, place: str, label: str, split: Split) -> Iterable[ListedClip]:
    clips = []
    for entry in sorted(visible(folder / place), key=lambda entry: entry.name):
        video = PurePosixPath(entry.name).suffix.lower() in VIDEOS
        if video or (entry.is_dir() and has_pictures(Path(entry.path))):
            name = f"{place}/{entry.name}"
            clips.append(ListedClip(name, label, split, source_group(name, label)))
    if not clips:
        raise InputError(
            f"{folder / place} holds no clip; put videos or folders of JPEG or PNG pictures "
            "there, or remove it."
        )
    return clips
