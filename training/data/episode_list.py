"""A fixed list of episodes as JSON: published beside a number, and read to repeat it.

Clips are identified by their names in the list of the data set, so that their files may lie
anywhere and have any suffix.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from model.errors import first_fault
from training.data.datasets import Dataset, LabelledClip
from training.data.episodes import Episode
from training.errors import InputError
from training.run_folder import write_aside


@dataclass(frozen=True, slots=True)
class EpisodeList:
    """Episodes of one split of a data set; their numbers are indices of `dataset.split(split)`.

    Args:
        split: The split.
        episodes: In the order of the file.
        same_clips: Whether the split has the same clips as when the list was written.
    """

    split: str
    episodes: tuple[Episode, ...]
    same_clips: bool


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Clip(_Strict):
    label: str
    name: str


class _Episode(_Strict):
    labels: tuple[str, ...]
    support: tuple[tuple[int, ...], ...]  # places in `clips`, class by class
    query: tuple[int, ...]  # places in `clips`, shuffled


class _File(_Strict):
    schema_version: Literal[1] = 1
    dataset: str
    split: str
    clips_sha256: str  # of every clip of the split
    clips: tuple[_Clip, ...]  # that an episode has
    episodes: tuple[_Episode, ...]


def write_episode_list(
    file: Path, dataset: Dataset, split: str, episodes: Sequence[Episode]
) -> None:
    """Write episodes of `dataset.split(split)`.

    Raises:
        InputError: The file cannot be written; no part of it is left.
    """
    clips = dataset.split(split)
    used = sorted({index for episode in episodes for index in (*episode.support, *episode.query)})
    place = {index: number for number, index in enumerate(used)}
    written = _File(
        dataset=dataset.name,
        split=split,
        clips_sha256=clips_sha256(clips),
        clips=tuple(_Clip(label=clips[index].label, name=_name(clips[index])) for index in used),
        episodes=tuple(_written(episode, place) for episode in episodes),
    )
    write_aside(file, (written.model_dump_json() + "\n").encode())


def read_episode_list(file: Path, dataset: Dataset) -> EpisodeList:
    """Read episodes, and find their clips in a data set.

    Raises:
        InputError: The file cannot be read, or the data set lacks one of its clips.
    """
    try:
        read = _File.model_validate_json(file.read_bytes())
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}); give a list.") from error
    except ValidationError as error:
        raise InputError(
            f"{file} is no episode list of this version ({first_fault(error)}); write it again."
        ) from error
    clips = dataset.split(read.split)
    known = {(clip.label, _name(clip)): index for index, clip in enumerate(clips)}
    lacking = [clip for clip in read.clips if (clip.label, clip.name) not in known]
    if lacking:
        raise InputError(
            f"{len(lacking)} of the {len(read.clips)} clips of {file} are not in {dataset.name}, "
            f"first {lacking[0].name!r} of {lacking[0].label!r}; give the data set "
            f"{read.dataset!r} with all its clips."
        )
    indices = [known[clip.label, clip.name] for clip in read.clips]
    episodes = tuple(
        _read(file, number, episode, read.clips, indices)
        for number, episode in enumerate(read.episodes)
    )
    return EpisodeList(read.split, episodes, read.clips_sha256 == clips_sha256(clips))


def clips_sha256(clips: Iterable[LabelledClip]) -> str:
    """Return a hash of the labels and names of clips, whatever their order."""
    lines = sorted(f"{clip.label}\t{_name(clip)}\n" for clip in clips)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _name(clip: LabelledClip) -> str:
    return clip.name or clip.path.name


def _written(episode: Episode, place: dict[int, int]) -> _Episode:
    support: list[list[int]] = [[] for _ in episode.labels]
    for index, number in zip(episode.support, episode.support_classes, strict=True):
        support[number].append(place[index])
    return _Episode(
        labels=episode.labels,
        support=tuple(tuple(of_class) for of_class in support),
        query=tuple(place[index] for index in episode.query),
    )


def _read(
    file: Path,
    number: int,
    episode: _Episode,
    clips: Sequence[_Clip],
    indices: Sequence[int],
) -> Episode:
    """Turn places into indices; classes follow from labels."""
    classes = {label: n for n, label in enumerate(episode.labels)}
    support = [place for of_class in episode.support for place in of_class]
    places = [*support, *episode.query]
    sound = (
        len(classes) == len(episode.labels) == len(episode.support)
        and all(0 <= place < len(clips) for place in places)
        and len(set(places)) == len(places)
        and all(clips[place].label in classes for place in places)
        and all(
            clips[place].label == label
            for label, of_class in zip(episode.labels, episode.support, strict=True)
            for place in of_class
        )
    )
    if not sound:
        raise InputError(
            f"Episode {number} of {file} has clips twice, of other labels or of none; write the "
            "list again."
        )
    return Episode(
        labels=episode.labels,
        support=tuple(indices[place] for place in support),
        support_classes=tuple(classes[clips[place].label] for place in support),
        query=tuple(indices[place] for place in episode.query),
        query_classes=tuple(classes[clips[place].label] for place in episode.query),
    )
