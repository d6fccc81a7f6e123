"""A set of labelled clips, from any of three forms.

1. an index.csv: `path,label,split,source_group`, and `family` where labels have any;
2. a folder of standard split files, joined to a root of videos or of folders of pictures;
3. a folder of `<label>/<clip>`, or of `<split>/<label>/<clip>`.
"""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from training.data.listed import Listing, check_homes, list_data
from training.data.listings import SPLITS, ClipFinder, Split
from training.data.split_files import is_split_folder
from training.errors import InputError

MAX_MISSING = 0.05  # share of the listed clips
ALL = "all"  # in place of a split: the clips of every one


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
        """Return the clips of one split, or of `all`.

        Raises:
            InputError: It has none.
        """
        if split == ALL:
            return tuple(clip for name in SPLITS for clip in self.clips.get(name, ()))
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


def open_dataset(
    data: Path,
    *,
    root: Path | None = None,
    max_missing: float = MAX_MISSING,
    names: Path | None = None,
    split_seed: int = 0,
    few_are_test: bool = False,
) -> Dataset:
    """Open a data set and look for its files.

    Files of split files are found under any suffix of a video or as folders of pictures, and with
    or without the first folders of their paths (`videos/`, `train_256/`, the class).

    Args:
        data: An index.csv, a folder that holds one, a folder of split files, or a folder of clips.
        root: Where the files lie; the folder of the index or split files if None.
        max_missing: Share of the listed clips whose files may be missing.
        names: Names of the classes of split files that only number them, as `read_names` reads
            them; a classes.csv, .txt or .json beside the split files if None.
        split_seed: Divides the labels of a folder without split folders.
        few_are_test: Whether such a folder of fewer than 20 labels is all test, and not refused.

    Raises:
        InputError: The data cannot be used.
    """
    listing = list_data(data, root, names, split_seed, few_are_test=few_are_test)
    finder = ClipFinder(listing.root)
    find = finder.exactly if listing.form == "index" else finder.anywhere
    clips: dict[Split, list[LabelledClip]] = {split: [] for split in SPLITS}
    missing: list[Path] = []
    for listed in listing.clips:
        if (path := find(listed.name)) is None:
            missing.append(listing.root / listed.name)
        else:
            of_list = listed.label, listed.source_group, listed.name, listed.family
            clips[listed.split].append(LabelledClip(path, *of_list))
    _check_found(data, listing, clips, missing, max_missing)
    found = {split: tuple(of_split) for split, of_split in clips.items()}
    return Dataset(listing.name, found, tuple(missing), listing.named)


def open_datasets(
    data: Sequence[Path],
    *,
    root: Path | None = None,
    max_missing: float = MAX_MISSING,
    names: Path | None = None,
    few_are_test: bool = False,
) -> Dataset:
    """Open one data set, or several as one.

    Args:
        data: As `open_dataset`'s.
        root: Where the files lie; of several, those of split files.
        max_missing: Share of the listed clips whose files may be missing, of each.
        names: Names of the classes of split files.
        few_are_test: As `open_dataset`'s.

    Raises:
        InputError: As `open_dataset` and `join_datasets`.
    """
    open_one = partial(open_dataset, max_missing=max_missing, few_are_test=few_are_test)
    if len(data) == 1:
        return open_one(data[0], root=root, names=names)
    by_split_files = [is_split_folder(one) for one in data]
    if (root is not None or names is not None) and not any(by_split_files):
        raise InputError(f"None of the data sets has split files; leave out {root or names}.")
    return join_datasets(
        [
            open_one(one, root=root, names=names) if split_files else open_one(one)
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

    def open(self, *, few_are_test: bool = False) -> Dataset:
        """Open the data; raises as `open_datasets`."""
        return open_datasets(
            self.data,
            root=self.root,
            names=self.names,
            max_missing=self.max_missing,
            few_are_test=few_are_test,
        )


def join_datasets(datasets: Sequence[Dataset]) -> Dataset:
    """Join data sets; clips keep their families, and episodes are of one data set each.

    Raises:
        InputError: Two have one name, or a label is in different splits of two.
    """
    repeated = [name for name, n in Counter(one.name for one in datasets).items() if n > 1]
    if repeated:
        raise InputError(f"Two data sets are called {repeated[0]!r}; rename the folder of one.")
    check_homes(
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


def _check_found(
    data: Path,
    listing: Listing,
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
