"""What a data set lists, in any of its forms, before its files are looked for."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from model.text import spoken
from training.data.listings import SPLITS, ListedClip, Split, list_folder, list_index
from training.data.split_files import is_split_folder, list_split_files
from training.errors import InputError


@dataclass(frozen=True, slots=True)
class Listing:
    """The clips that a data set lists, before their files are looked for."""

    name: str
    clips: tuple[ListedClip, ...]
    root: Path
    form: Literal["index", "split files", "folder"]
    named: bool = True


def read_labels(
    data: Path, *, names: Path | None = None, split_seed: int = 0
) -> tuple[dict[Split, tuple[str, ...]], bool]:
    """Return the labels that a data set lists, and whether they are names; no file is needed.

    Raises:
        InputError: As `open_dataset`.
    """
    listing = list_data(data, None, names, split_seed, few_are_test=True)
    labels = {
        split: tuple(sorted({clip.label for clip in listing.clips if clip.split == split}))
        for split in SPLITS
    }
    return labels, listing.named


def list_data(
    data: Path, root: Path | None, names: Path | None, split_seed: int, *, few_are_test: bool
) -> Listing:
    """List the clips of a data set of any form; arguments and errors as `open_dataset`."""
    if data.is_dir() and (data / "index.csv").is_file():
        data = data / "index.csv"
    if root is not None and not root.is_dir():
        raise InputError(f"{root} is no folder; give the one that holds the videos or pictures.")
    if data.is_file():
        folder = data.resolve().parent
        listing = Listing(folder.name, list_index(data), root or data.parent, "index")
    elif not data.is_dir():
        raise InputError(f"{data} is not there; give an index.csv, split files or a folder.")
    elif is_split_folder(data):
        clips, named = list_split_files(data, names)
        listing = Listing(data.resolve().name, clips, root or data, "split files", named)
    elif root is not None:
        raise InputError(f"{data} holds clips itself; leave out the root {root}.")
    else:
        clips = list_folder(data, seed=split_seed, few_are_test=few_are_test)
        listing = Listing(data.resolve().name, clips, data, "folder")
    if names is not None and listing.form != "split files":
        raise InputError(f"{data} has names of its own; leave out {names}.")
    _check_listed(data, listing.clips)
    return listing


def _check_listed(data: Path, clips: Sequence[ListedClip]) -> None:
    """Refuse an empty list, clips listed twice, and labels of two splits."""
    if not clips:
        raise InputError(f"{data} lists no clip; give another.")
    (name, count), *_ = Counter(clip.name for clip in clips).most_common(1)
    if count > 1:
        raise InputError(f"{data} lists {name!r} {count} times; keep one of them.")
    check_homes((clip.label, clip.split, str(data)) for clip in clips)


def check_homes(labels: Iterable[tuple[str, Split, str]]) -> None:
    """Refuse a label of two splits; each comes with its split and the data set that has it."""
    homes: dict[str, tuple[str, Split, str]] = {}
    for label, split, owner in labels:
        spelled, home, first = homes.setdefault(spoken(label), (label, split, owner))
        if home != split:
            raise InputError(
                f"The label {label!r} is in {home} of {first} and in {split} of {owner}; test "
                "classes must be new, so give each label one split."
            )
        if owner == first and label != spelled:
            raise InputError(f"{owner} spells one label {spelled!r} and {label!r}; choose one.")
