"""Episodes: seeded, shuffled, supports and queries from different source groups."""

import hashlib
from pathlib import Path

import pytest

from tests.training.conftest import SHARED
from training.data.datasets import LabelledClip, open_dataset
from training.data.episodes import Episode, EpisodePlan, EpisodeSampler, draw_episode
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
    with pytest.raises(
        InputError,
        match="label 'a' with 12 clips of 6 source groups is too small for 12 shots and 2 ",
    ):
        draw(0, shots=12)
    one_group = [LabelledClip(clip.path, clip.label, "same") for clip in CLIPS]
    with pytest.raises(InputError, match="other source groups"):
        draw_episode(one_group, ways=2, shots=1, queries=1, seed=0, number=0)


def test_episodes_of_jhmdb_are_those_of_the_first_release() -> None:
    index = SHARED / "data/jhmdb/index.csv"
    if not index.is_file():
        pytest.skip(f"{index} is not here; it is not part of the project")
    clips = open_dataset(index).split("test")
    sampler = EpisodeSampler(clips, EpisodePlan(5, 5, 5), seed=0)
    drawn = repr([sampler.draw(number) for number in range(300)])
    # computed before clips were indexed by class: the published figures stand on these episodes
    wanted = "67b6e58da6749a2ec73a5fecff8efe88bbd18818b3911cdd606ef21509aa463c"
    assert hashlib.sha256(drawn.encode()).hexdigest() == wanted


def test_episodes_are_those_of_the_first_release() -> None:
    assert draw(17) == Episode(
        labels=("d", "c", "f", "b", "a"),
        support=(40, 36, 46, 35, 25, 31, 64, 60, 67, 22, 13, 17, 5, 8, 6),
        support_classes=(0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4),
        query=(70, 45, 1, 62, 19, 33, 15, 29, 11, 39),
        query_classes=(2, 0, 4, 2, 3, 1, 3, 1, 4, 0),
    )


def test_ranges_are_drawn_and_fixed_by_seed_and_number() -> None:
    sampler = EpisodeSampler(CLIPS, EpisodePlan((2, 6), (1, 5), 2), seed=3)
    again = EpisodeSampler(CLIPS, EpisodePlan((2, 6), (1, 5), 2), seed=3)
    episodes = [sampler.draw(number) for number in range(100)]
    assert [again.draw(number) for number in reversed(range(100))] == episodes[::-1]
    assert {len(episode.labels) for episode in episodes} == {2, 3, 4, 5, 6}
    shots = [len(episode.support) / len(episode.labels) for episode in episodes]
    assert set(shots) == {1, 2, 3, 4, 5}
    assert all(len(episode.query) == 2 * len(episode.labels) for episode in episodes)


def test_classes_of_few_large_groups_can_always_be_drawn() -> None:
    clips = [
        LabelledClip(Path(f"{label}{index}.mp4"), label, f"{label}{index >= 10}")
        for label in "ab"
        for index in range(15)
    ]
    sampler = EpisodeSampler(clips, EpisodePlan(2, 5, 5), seed=0)
    for number in range(30):
        episode = sampler.draw(number)
        assert not {clips[index].source_group for index in episode.support} & {
            clips[index].source_group for index in episode.query
        }
        assert len(set(episode.support)) == len(set(episode.query)) == 10


@pytest.mark.parametrize("sizes", [(0, 1, 1), (5, (3, 2), 1), (5, 1, 0)])
def test_sizes_that_make_no_episode_are_told(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(InputError, match="cannot be drawn; give 1 or more"):
        EpisodePlan(*sizes)
