"""A set of labelled clips, from any of three forms.

1. an index.csv: `path,label,split,source_group`, and `family` where labels have any;
2. a folder of standard split files, joined to a root of videos or of folders of pictures;
3. a folder of `<label>/<clip>`, or of `<split>/<label>/<clip>`.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from model.text import spoken
from training.data.listings import (
    SPLITS,
    ClipFinder,
    ListedClip,
    Split,
    list_folder,
    list_index,
)
from training.data.split_files import is_split_folder, list_split_files
from training.errors import InputError

MAX_MISSING = 0.05  # share of the listed clips


@dataclass(frozen=True, slots=True)
class LabelledClip:
    """One clip of a data set.

    Args:
        path: A video, or a folder of pictures.
        label: Its class.
        source_group: The recording it was cut from; its own name where that is not known.
        name: Its name in the list, wherever the files lie.
        family: Of its class; the classes of an episode are of one family.
        dataset: The data set it came from, where several were joined.
    """

    path: Path
    label: str
    source_group: str
    name: str = ""
    family: str = ""
    dataset: str = ""


@dataclass(frozen=True, slots=True)
class Dataset:
    """The clips of three splits that share no label.

    Args:
        name: Of the folder that lists the clips.
        clips: Those whose files exist, in the order of the list.
        missing: Where the files of the others were expected.
        named: Whether labels are names; `train8` is not, and text must then not be used.
    """

    name: str
    clips: Mapping[Split, tuple[LabelledClip, ...]]
    missing: tuple[Path, ...] = ()
    named: bool = True

    def split(self, split: str) -> tuple[LabelledClip, ...]:
        """Return the clips of one split.

        Raises:
            InputError: It has none.
        """
        found = next((clips for name, clips in self.clips.items() if name == split), ())
        if not found:
            known = ", ".join(sorted(name for name in SPLITS if self.clips.get(name)))
            raise InputError(f"{self.name} has no split {split!r}; it has {known or 'no clips'}.")
        return found

    def labels(self, split: str) -> tuple[str, ...]:
        """Return the labels of one split in alphabetical order.

        Raises:
            InputError: It has none.
        """
        return tuple(sorted({clip.label for clip in self.split(split)}))


@dataclass(frozen=True, slots=True)
class _Listing:
    """The clips that a data set lists, before their files are looked for."""

    name: str
    clips: tuple[ListedClip, ...]
    root: Path
    form: Literal["index", "split files", "folder"]
    named: bool = True


def open_dataset(
    data: Path,
    *,
    root: Path | None = None,
    max_missing: float = MAX_MISSING,
    names: Path | None = None,
    split_seed: int = 0,
) -> Dataset:
    """Open a data set and look for its files.

    Files of split files are found under any suffix of a video or as folders of pictures, and with
    or without the first folders of their paths (`videos/`, `train_256/`, the class).

    Args:
        data: An index.csv, a folder that holds one, a folder of split files, or a folder of clips.
        root: Where the files lie; the folder of the index or split files if None.
        max_missing: Share of the listed clips whose files may be missing.
        names: Names of the classes of split files that only number them, as
            `training.data.split_files.read_names` reads them; a classes.csv, .txt or .json beside
            the split files if None.
        split_seed: Divides the labels of a folder without split folders.

    Raises:
        InputError: The data cannot be used; the message says why, and the remedy.
    """
    listing = _list(data, root, names, split_seed)
    finder = ClipFinder(listing.root)
    find = finder.exactly if listing.form == "index" else finder.anywhere
    clips: dict[Split, list[LabelledClip]] = {split: [] for split in SPLITS}
    missing: list[Path] = []
    for listed in listing.clips:
        if (path := find(listed.name)) is None:
            missing.append(listing.root / listed.name)
        else:
            clips[listed.split].append(
                LabelledClip(path, listed.label, listed.source_group, listed.name, listed.family)
            )
    _check_found(data, listing, clips, missing, max_missing)
    found = {split: tuple(of_split) for split, of_split in clips.items()}
    return Dataset(listing.name, found, tuple(missing), listing.named)


def open_datasets(
    data: Sequence[Path],
    *,
    root: Path | None = None,
    max_missing: float = MAX_MISSING,
    names: Path | None = None,
) -> Dataset:
    """Open one data set, or several as one.

    Args:
        data: As `open_dataset`'s.
        root: Where the files lie; of several, those of split files.
        max_missing: Share of the listed clips whose files may be missing, of each.
        names: Names of the classes of split files.

    Raises:
        InputError: As `open_dataset` and `join_datasets`.
    """
    if len(data) == 1:
        return open_dataset(data[0], root=root, max_missing=max_missing, names=names)
    by_split_files = [is_split_folder(one) for one in data]
    if (root is not None or names is not None) and not any(by_split_files):
        raise InputError(f"None of the data sets has split files; leave out {root or names}.")
    return join_datasets(
        [
            open_dataset(one, root=root, max_missing=max_missing, names=names)
            if split_files
            else open_dataset(one, max_missing=max_missing)
            for one, split_files in zip(data, by_split_files, strict=True)
        ]
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DataChoice:
    """Which data a job uses: the arguments of `open_datasets`."""

    data: tuple[Path, ...]
    root: Path | None = None
    names: Path | None = None
    max_missing: float = MAX_MISSING

    def open(self) -> Dataset:
        """Open the data; raises as `open_datasets`."""
        return open_datasets(
            self.data, root=self.root, names=self.names, max_missing=self.max_missing
        )


def join_datasets(datasets: Sequence[Dataset]) -> Dataset:
    """Join data sets; clips keep their families, and episodes are of one data set each.

    Raises:
        InputError: Two have one name, or a label is in different splits of two.
    """
    repeated = [name for name, n in Counter(one.name for one in datasets).items() if n > 1]
    if repeated:
        raise InputError(f"Two data sets are called {repeated[0]!r}; rename the folder of one.")
    _check_homes(
        (clip.label, split, one.name)
        for one, split in itertools.product(datasets, SPLITS)
        for clip in one.clips.get(split, ())
    )
    clips = {
        split: tuple(
            replace(clip, dataset=one.name) for one in datasets for clip in one.clips.get(split, ())
        )
        for split in SPLITS
    }
    missing = tuple(path for one in datasets for path in one.missing)
    named = all(one.named for one in datasets)
    return Dataset("+".join(one.name for one in datasets), clips, missing, named)


def read_labels(
    data: Path, *, names: Path | None = None, split_seed: int = 0
) -> tuple[dict[Split, tuple[str, ...]], bool]:
    """Return the labels that a data set lists, and whether they are names; no file is needed.

    Raises:
        InputError: As `open_dataset`.
    """
    listing = _list(data, None, names, split_seed)
    labels = {
        split: tuple(sorted({clip.label for clip in listing.clips if clip.split == split}))
        for split in SPLITS
    }
    return labels, listing.named


def _list(data: Path, root: Path | None, names: Path | None, split_seed: int) -> _Listing:
    if data.is_dir() and (data / "index.csv").is_file():
        data = data / "index.csv"
    if root is not None and not root.is_dir():
        raise InputError(f"{root} is no folder; give the one that holds the videos or pictures.")
    if data.is_file():
        folder = data.resolve().parent
        listing = _Listing(folder.name, list_index(data), root or data.parent, "index")
    elif not data.is_dir():
        raise InputError(f"{data} is not there; give an index.csv, split files or a folder.")
    elif is_split_folder(data):
        clips, named = list_split_files(data, names)
        listing = _Listing(data.resolve().name, clips, root or data, "split files", named)
    elif root is not None:
        raise InputError(f"{data} holds clips itself; leave out the root {root}.")
    else:
        clips = list_folder(data, seed=split_seed)
        listing = _Listing(data.resolve().name, clips, data, "folder")
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
    _check_homes((clip.label, clip.split, str(data)) for clip in clips)


def _check_homes(labels: Iterable[tuple[str, Split, str]]) -> None:
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


def _check_found(
    data: Path,
    listing: _Listing,
    clips: Mapping[Split, Sequence[LabelledClip]],
    missing: Sequence[Path],
    max_missing: float,
) -> None:
    """Refuse too many missing files, and classes that have none."""
    total = len(listing.clips)
    if len(missing) > max_missing * total:
        raise InputError(
            f"{len(missing)} of the {total} clips of {data} are missing, first {missing[0]}; "
            f"correct the root, or allow a larger share than {max_missing:g}."
        )
    found = {(split, clip.label) for split in SPLITS for clip in clips[split]}
    for listed in listing.clips:
        if (listed.split, listed.label) not in found:
            raise InputError(
                f"{data} names the class {listed.label!r} of {listed.split}, but {listing.root} "
                "has no clip of it; add its clips, or remove its lines."
            )
