"""Episodes: seeded, shuffled, supports and queries from different source groups."""

from pathlib import Path

import pytest

from tests.training.conftest import SHARED
from training.episodes import Episode, LabelledClip, draw_episode, read_clips
from training.errors import InputError

CLIPS = [
    LabelledClip(Path(f"{label}{index}.mp4"), label, f"{label}{index // 2}")
    for label in "abcdef"
    for index in range(12)
]


def draw(number: int, **changes: int) -> Episode:
    sizes = {"ways": 5, "shots": 3, "queries": 2, "seed": 1, **changes}
    return draw_episode(CLIPS, number=number, **sizes)


def test_an_episode_is_a_function_of_seed_and_number() -> None:
    assert draw(4) == draw(4)
    assert draw(4) != draw(5)
    assert draw(4) != draw(4, seed=2)


def test_support_and_queries_share_no_source_group() -> None:
    for number in range(50):
        episode = draw(number)
        shown = {CLIPS[index].source_group for index in episode.support}
        asked = {CLIPS[index].source_group for index in episode.query}
        assert not shown & asked


def test_classes_and_clips_fit_their_labels_without_replacement() -> None:
    episode = draw(0)
    assert len(set(episode.labels)) == 5
    assert len(set(episode.support)) == len(episode.support) == 15
    assert len(set(episode.query)) == len(episode.query) == 10
    for index, n in zip(episode.support, episode.support_classes, strict=True):
        assert CLIPS[index].label == episode.labels[n]
    for index, n in zip(episode.query, episode.query_classes, strict=True):
        assert CLIPS[index].label == episode.labels[n]


def test_queries_are_shuffled_over_classes() -> None:
    orders = [draw(number).query_classes for number in range(20)]
    assert any(list(order) != sorted(order) for order in orders)


def test_too_many_ways_or_too_few_groups_are_told() -> None:
    with pytest.raises(InputError, match="7 ways need as many classes; there are 6"):
        draw(0, ways=7)
    with pytest.raises(InputError, match="too small for 12 shots and 2 queries"):
        draw(0, shots=12)
    one_group = [LabelledClip(clip.path, clip.label, "same") for clip in CLIPS]
    with pytest.raises(InputError, match="other source groups"):
        draw_episode(one_group, ways=2, shots=1, queries=1, seed=0, number=0)


def test_an_unknown_split_or_a_missing_column_is_told(indexed: Path, tmp_path: Path) -> None:
    assert len(read_clips(indexed / "index.csv", "test")) == 8
    with pytest.raises(InputError, match="no split 'nope'; it has test, train, val"):
        read_clips(indexed / "index.csv", "nope")
    (tmp_path / "index.csv").write_text("path,label\na.mp4,a\n")
    with pytest.raises(InputError, match="no column 'source_group'"):
        read_clips(tmp_path / "index.csv", "test")


def test_five_ways_five_shots_can_be_drawn_from_jhmdb() -> None:
    index = SHARED / "data/jhmdb/index.csv"
    if not index.is_file():
        pytest.skip(f"{index} is not here; it is not part of the project")
    clips = read_clips(index, "test")
    for number in range(200):
        draw_episode(clips, ways=5, shots=5, queries=5, seed=0, number=number)
