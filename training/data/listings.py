"""The clips that an index.csv or folders `<label>/<clip>` list, and where their files are found.

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
VIDEOS = frozenset(
    {".mp4", ".webm", ".avi", ".mov", ".mkv", ".m4v", ".ts", ".mts", ".m2ts", ".m2t"}
)
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
    """One clip of a list, before its file is looked for.

    Args:
        name: Its path in the list, with `/`, relative to the root of the files.
        label: Its class.
        split: Of its class.
        source_group: The recording it was cut from; its name where that is not known.
        family: Of labels that belong in one episode; empty where all do.
    """

    name: str
    label: str
    split: Split
    source_group: str
    family: str = ""


def stem(name: str) -> str:
    """Return a file name without a video's suffix; any other suffix stays."""
    path = PurePosixPath(name)
    return path.stem if path.suffix.lower() in VIDEOS else path.name


def source_group(name: str, label: str) -> str:
    """Return the recording that a clip was cut from, as the file names of HMDB51 and UCF101 tell.

    Any other clip is a group of its own, as Kinetics has one clip a recording.
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
        InputError: There is no such file, a column is missing, or a row is too short.
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
        InputError: The file cannot be read, or a row has another split.
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


def list_folder(
    folder: Path, *, seed: int = 0, few_are_test: bool = False
) -> tuple[ListedClip, ...]:
    """Return the clips of a folder of `<label>/<clip>`, or of `<split>/<label>/<clip>`.

    A clip is a video or a folder of pictures. Without split folders, labels are ordered by hash:
    the first 15 % are test, the next 15 % val, at least 5 each, and the others train.

    Args:
        folder: The folder.
        seed: Of the hashes.
        few_are_test: Whether fewer than 20 labels are all test, as for who trains nothing.

    Raises:
        InputError: There is no label, a label has no clips, or fewer than 20 labels have no split.
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
    divided = divide(names, seed, str(folder), few_are_test=few_are_test)
    return tuple(clip for name in names for clip in _list_label(folder, name, name, divided[name]))


def divide(
    labels: Sequence[str], seed: int, where: str, *, few_are_test: bool = False
) -> dict[str, Split]:
    """Return the split of each label, by the order of the labels' hashes.

    Raises:
        InputError: There are fewer than 20 labels, and few are not to be test.
    """
    if len(labels) < LEAST_LABELS and few_are_test:
        return dict.fromkeys(labels, "test")
    if len(labels) < LEAST_LABELS:
        raise InputError(
            f"{where} has {len(labels)} labels, too few to train on some and choose by others; "
            f"give {LEAST_LABELS} or more, or put the label folders into train/, val/ and test/ "
            "yourself."
        )
    held_out = max(LEAST_HELD_OUT, round(HELD_OUT_SHARE * len(labels)))
    order = sorted(labels, key=lambda label: hashlib.sha256(f"{seed}:{label}".encode()).digest())
    splits: dict[str, Split] = dict.fromkeys(order, "train")
    splits |= dict.fromkeys(order[:held_out], "test")
    splits |= dict.fromkeys(order[held_out : 2 * held_out], "val")
    return splits


class ClipFinder:
    """Finds listed clips below a root; each folder is read once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._held: dict[Path, dict[str, Path]] = {}

    def exactly(self, name: str) -> Path | None:
        """Return the path of a name, if there is such a file or folder."""
        path = self.root / name
        return path if path.exists() else None

    def anywhere(self, name: str) -> Path | None:
        """Return the clip of a name; its suffix and the first folders of its path may differ."""
        parts = PurePosixPath(name).parts
        for start in range(len(parts)):
            held = self._clips(self.root.joinpath(*parts[start:-1]))
            if (path := held.get(parts[-1], held.get(stem(parts[-1])))) is not None:
                return path
        return None

    def _clips(self, folder: Path) -> dict[str, Path]:
        """Return the clips of a folder by name and by name without suffix, videos first."""
        if folder not in self._held:
            entries = list(visible(folder)) if folder.is_dir() else []
            found: dict[str, Path] = {}
            for entry in sorted(entries, key=lambda entry: (entry.is_dir(), entry.name)):
                video = PurePosixPath(entry.name).suffix.lower() in VIDEOS
                if video or entry.is_dir():
                    found.setdefault(entry.name, Path(entry.path))
                    found.setdefault(stem(entry.name), Path(entry.path))
            self._held[folder] = found
        return self._held[folder]


def has_pictures(folder: Path) -> bool:
    """Tell whether a folder holds a picture that a clip can be made of."""
    return any(PurePosixPath(entry.name).suffix.lower() in PICTURES for entry in visible(folder))


def visible(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Yield the entries of a folder that are not hidden.

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
