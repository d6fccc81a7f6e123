"""Fixed episodes: written, read on another machine, refused where clips are not there."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data.datasets import Dataset, LabelledClip
from training.data.episode_list import read_episode_list, write_episode_list
from training.data.episodes import Episode, EpisodePlan, EpisodeSampler
from training.errors import InputError

CLIPS = tuple(
    LabelledClip(Path(f"/here/{label}/{n}.avi"), label, f"{n}", f"{label}/{n}.avi")
    for label in "abcde"
    for n in range(4)
)
DATASET = Dataset("letters", {"test": CLIPS})


def drawn(count: int = 5) -> tuple[Episode, ...]:
    sampler = EpisodeSampler(CLIPS, EpisodePlan((2, 4), (1, 2), 2), seed=0)
    return tuple(sampler.draw(number) for number in range(count))


def elsewhere(clips: tuple[LabelledClip, ...]) -> Dataset:
    moved = [replace(clip, path=Path("/there") / f"{clip.name}.mp4") for clip in clips]
    return Dataset("letters", {"test": tuple(reversed(moved))})


def damaged(file: Path, change: dict[str, Any]) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | change))


def test_episodes_survive_being_written(tmp_path: Path) -> None:
    write_episode_list(tmp_path / "a.json", DATASET, "test", drawn())
    read = read_episode_list(tmp_path / "a.json", DATASET)
    assert (read.split, read.episodes, read.same_clips) == ("test", drawn(), True)


def test_the_same_clips_are_found_where_files_lie_elsewhere_in_another_order(
    tmp_path: Path,
) -> None:
    write_episode_list(tmp_path / "a.json", DATASET, "test", drawn())
    other = elsewhere(CLIPS)
    read = read_episode_list(tmp_path / "a.json", other)
    assert read.same_clips
    for here, there in zip(drawn(), read.episodes, strict=True):
        clips = other.split("test")
        assert here.labels == there.labels
        assert here.query_classes == there.query_classes
        assert [CLIPS[i].name for i in here.query] == [clips[i].name for i in there.query]
        assert [CLIPS[i].name for i in here.support] == [clips[i].name for i in there.support]
    more = (*CLIPS, LabelledClip(Path("z.mp4"), "a", "9", "a/9.avi"))
    assert not read_episode_list(tmp_path / "a.json", elsewhere(more)).same_clips


def test_a_clip_that_is_not_there_is_told(tmp_path: Path) -> None:
    write_episode_list(tmp_path / "a.json", DATASET, "test", drawn(40))
    said = r"1 of the 20 clips of .* are not in letters, first 'c/1.avi' of 'c'; give the data set"
    rest = tuple(clip for clip in CLIPS if clip.name != "c/1.avi")
    with pytest.raises(InputError, match=said):
        read_episode_list(tmp_path / "a.json", elsewhere(rest))
    other_label = (*rest, replace(CLIPS[9], label="d"))
    with pytest.raises(InputError, match=said):
        read_episode_list(tmp_path / "a.json", elsewhere(other_label))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema_version": 2}, "no episode list of this version .schema_version"),
        ({"extra": 1}, "no episode list of this version .extra"),
        ({"split": "dev"}, "no split 'dev'; it has test"),
        ({"episodes": [{"labels": ["a"], "support": [[0]], "query": [0]}]}, "Episode 0 .* twice"),
        ({"episodes": [{"labels": ["a"], "support": [[0]], "query": [99]}]}, "Episode 0"),
        ({"episodes": [{"labels": ["a"], "support": [[0]], "query": [-1]}]}, "Episode 0"),
        ({"episodes": [{"labels": ["a", "a"], "support": [[0], [1]], "query": []}]}, "Episode 0"),
        ({"episodes": [{"labels": ["zz"], "support": [[0]], "query": [1]}]}, "Episode 0"),
    ],
)
def test_lists_that_do_not_fit_are_told(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    write_episode_list(tmp_path / "a.json", DATASET, "test", drawn(40))
    damaged(tmp_path / "a.json", change)
    with pytest.raises(InputError, match=said):
        read_episode_list(tmp_path / "a.json", DATASET)


def test_no_file_or_no_json_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_episode_list(tmp_path / "a.json", DATASET)
    (tmp_path / "a.json").write_text("[")
    with pytest.raises(InputError, match=re.escape("no episode list of this version (the file")):
        read_episode_list(tmp_path / "a.json", DATASET)


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 5), st.integers(1, 2))
def test_any_episode_survives(
    tmp_path_factory: pytest.TempPathFactory, seed: int, ways: int, shots: int
) -> None:
    episode = EpisodeSampler(CLIPS, EpisodePlan(ways, shots, 2), seed).draw(0)
    file = tmp_path_factory.getbasetemp() / "any.json"
    write_episode_list(file, DATASET, "test", [episode])
    assert read_episode_list(file, DATASET).episodes == (episode,)
