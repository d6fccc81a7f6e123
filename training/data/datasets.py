"""A set of labelled clips from any of three forms, and the frames of one of its clips.

1. an index.csv: `path,label,split,source_group`, and `family` where labels have any;
2. a folder of standard split files, joined to a root of videos or of folders of pictures;
3. a folder of `<label>/<clip>`, or of `<split>/<label>/<clip>`.

Dimensions: T sampled frames, H = W = size, 3 colours (RGB).
"""

import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from model.errors import ClipError, ClipUndecodableError, NoFramesError
from model.media.container import UNLIMITED
from model.media.pictures import read_pictures
from model.media.sampling import centre_indices, jittered_indices
from model.media.video import decode_video, read_clip
from model.text import spoken
from training.data.listings import (
    PICTURES,
    SPLITS,
    VIDEOS,
    ListedClip,
    Split,
    list_folder,
    list_index,
    stem,
    visible,
)
from training.data.local_video import decode_local
from training.data.split_files import is_split_folder, list_split_files
from training.errors import InputError

MAX_MISSING = 0.05  # share of the listed clips


@dataclass(frozen=True, slots=True)
class LabelledClip:
    """One clip of a data set.

    Args:
        path: A video, or a folder of pictures.
        label: Its class.
        source_group: The recording it was cut from; a clip that says nothing is its own.
        name: What its list calls it, wherever the files lie.
        family: Classes of one episode are of one family; see `training.data.episodes`.
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
        name: Of the folder that lists them.
        clips: Those whose files are there, in the order of the list.
        missing: Where the files of the others were expected.
        named: Whether labels are names; `train8` is none, and text must then not be used.
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
    """What a data set lists, before any file is looked for."""

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
        names: Names of the classes of split files that only number them; see
            `training.data.class_names`. If None, a classes.csv, .txt or .json beside the
            split files.
        split_seed: Divides the labels of a folder without split folders.

    Raises:
        InputError: The data cannot be used; the message says why, and the remedy.
    """
    listing = _list(data, root, names, split_seed)
    finder = _Finder(listing.root)
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


def join_datasets(datasets: Sequence[Dataset]) -> Dataset:
    """Join data sets; clips keep their families, and no episode has clips of two data sets.

    Raises:
        InputError: Two have one name, or a label is in different splits of two.
    """
    repeated = [name for name, n in Counter(one.name for one in datasets).items() if n > 1]
    if repeated:
        raise InputError(f"Two data sets are called {repeated[0]!r}; rename the folder of one.")
    homes: dict[str, tuple[Split, str]] = {}
    for one, split in itertools.product(datasets, SPLITS):
        for clip in one.clips.get(split, ()):
            home, owner = homes.setdefault(spoken(clip.label), (split, one.name))
            if home != split:
                raise InputError(
                    f"The label {clip.label!r} is in {home} of {owner} and in {split} of "
                    f"{one.name}; test classes must be new, so give each label one split."
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
    """Return the labels that a data set lists, and whether they are names; needs no files.

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
    homes: dict[str, Split] = {}
    for clip in clips:
        home = homes.setdefault(spoken(clip.label), clip.split)
        if home != clip.split:
            raise InputError(
                f"{data} has the label {clip.label!r} in {home} and in {clip.split}; test classes "
                "must be new, so give each label one split."
            )


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
                f"{data} names the class {listed.label!r} of {listed.split}, and no clip of it is "
                f"below {listing.root}; add its clips, or remove its lines."
            )


class _Finder:
    """Finds files below a root; each folder is read once."""

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


def read_frames(
    clip: LabelledClip,
    *,
    frames: int,
    size: int,
    rng: np.random.Generator | None = None,
) -> NDArray[np.uint8]:
    """Read a clip's sampled frames, uint8 [T, H, W, 3]: short side to `size`, centre crop.

    Args:
        clip: A video or a folder of pictures, which are taken in natural order.
        frames: T equal spans of the clip, one frame each.
        size: Height and width in pixels.
        rng: Draws a frame inside each span, for a view of training, which decord may read. If
            None, the centre of each span, read as the service reads it.

    Raises:
        ClipError: The clip cannot be used; the message begins with its path.
    """
    try:
        if clip.path.is_dir():
            return _read_folder(clip.path, frames, size, rng)
        decode = decode_video if rng is None else decode_local
        video = read_clip(
            clip.path, frames=frames, size=size, limits=UNLIMITED, jitter=rng, decode=decode
        )
    except ClipError as error:
        raise type(error)(f"{clip.path}: {error}") from error
    except OSError as error:
        raise ClipUndecodableError(
            f"{clip.path} cannot be read ({error.strerror}); restore or remove it."
        ) from error
    return cast("NDArray[np.uint8]", video.frames_THWC)


def _read_folder(
    folder: Path, frames: int, size: int, rng: np.random.Generator | None
) -> NDArray[np.uint8]:
    pictures = sorted(
        (path for path in folder.iterdir() if path.suffix.lower() in PICTURES), key=_natural
    )
    if not pictures:
        raise NoFramesError("The folder holds no JPEG or PNG picture; extract its frames again.")
    count = len(pictures)
    picked = centre_indices(count, frames) if rng is None else jittered_indices(count, frames, rng)
    encoded = [pictures[k].read_bytes() for k in picked]
    read = read_pictures(encoded, frames=frames, size=size, limits=UNLIMITED)
    return cast("NDArray[np.uint8]", read.frames_THWC)


def _natural(path: Path) -> tuple[tuple[int, str], ...]:
    """Order picture 2 before picture 10."""
    parts = re.findall(r"\d+|\D+", path.name)
    return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in parts)
