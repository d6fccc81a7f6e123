"""Families of labels and joined data sets: an episode never mixes them."""

import json
from collections import Counter
from pathlib import Path

import pytest

from model.text import template_stages
from tests.training.conftest import TEACHER
from training import fit
from training.data.datasets import (
    Dataset,
    LabelledClip,
    join_datasets,
    open_dataset,
    open_datasets,
)
from training.data.descriptions_file import stage_texts, write_descriptions
from training.data.episodes import EpisodePlan, EpisodeSampler, fewest_labels
from training.data.listings import Split
from training.errors import InputError
from training.synthetic.order_set import OrderSet, write_order_set


def clips(family: str, labels: str, takes: int = 3) -> tuple[LabelledClip, ...]:
    return tuple(
        LabelledClip(Path(f"{family}{label}{take}"), label, f"{label}{take}", family=family)
        for label in labels
        for take in range(takes)
    )


def dataset(name: str, **splits: tuple[LabelledClip, ...]) -> Dataset:
    every: tuple[Split, ...] = ("train", "val", "test")
    return Dataset(name, {split: splits.get(split, ()) for split in every})


def test_classes_of_an_episode_are_of_one_family_and_all_families_are_drawn() -> None:
    found = clips("p", "abcd") + clips("q", "efg") + clips("r", "hij")
    sampler = EpisodeSampler(found, EpisodePlan((2, 3), 1, 1), 0)
    drawn: Counter[str] = Counter()
    for number in range(300):
        episode = sampler.draw(number)
        families = {found[index].family for index in (*episode.support, *episode.query)}
        assert len(families) == 1
        drawn += Counter(families)
        for index, n in zip(episode.query, episode.query_classes, strict=True):
            assert found[index].label == episode.labels[n]
    assert min(drawn[family] for family in "pqr") > 70


def test_a_label_of_two_families_is_two_classes() -> None:
    found = clips("p", "ab") + clips("q", "ab")
    sampler = EpisodeSampler(found, EpisodePlan(2, 1, 2), 0)
    for number in range(30):
        episode = sampler.draw(number)
        used = [*episode.support, *episode.query]
        assert len(used) == len(set(used)) == 6
        assert len({found[index].family for index in used}) == 1


def test_a_single_family_draws_as_none() -> None:
    plain = tuple(LabelledClip(c.path, c.label, c.source_group) for c in clips("p", "abcd"))
    plan = EpisodePlan((2, 4), (1, 2), 1)
    one, other = EpisodeSampler(plain, plan, 0), EpisodeSampler(clips("p", "abcd"), plan, 0)
    assert [one.draw(n) for n in range(20)] == [other.draw(n) for n in range(20)]


def test_a_family_of_too_few_labels_is_told() -> None:
    found = clips("p", "abcd") + clips("q", "efg")
    assert fewest_labels(found) == 3
    with pytest.raises(InputError, match=r"4 ways .* there are 3 in the family of 'e'"):
        EpisodeSampler(found, EpisodePlan(4, 1, 1), 0)


def test_joined_data_sets_are_drawn_equally_often_and_never_mixed() -> None:
    real = dataset("real", train=clips("", "abc"))
    made = dataset("made", train=clips("p", "defg") + clips("q", "hij") + clips("r", "klm"))
    joined = join_datasets([real, made])
    assert joined.name == "real+made"
    assert joined.labels("train") == tuple("abcdefghijklm")
    found = joined.split("train")
    sampler = EpisodeSampler(found, EpisodePlan(3, 1, 1), 0)
    drawn: Counter[str] = Counter()
    for number in range(300):
        members = {(found[i].dataset, found[i].family) for i in sampler.draw(number).query}
        assert len(members) == 1
        drawn += Counter(name for name, _ in members)
    assert 110 < drawn["real"] < 190


def test_a_joined_set_has_names_only_where_all_have() -> None:
    one, two = dataset("one", train=clips("", "ab")), dataset("two", test=clips("", "cd"))
    assert join_datasets([one, two]).named
    numbered = Dataset("three", two.clips, (Path("x"),), named=False)
    joined = join_datasets([one, numbered])
    assert not joined.named
    assert joined.missing == (Path("x"),)


def test_data_sets_that_cannot_be_joined_are_told() -> None:
    one = dataset("one", train=clips("", "ab"))
    with pytest.raises(InputError, match="Two data sets are called 'one'"):
        join_datasets([one, one])
    with pytest.raises(InputError, match="'b' is in train of one and in test of two"):
        join_datasets([one, dataset("two", test=clips("", "bc"))])


def test_a_joined_data_set_that_a_file_leaves_out_has_no_text(tmp_path: Path) -> None:
    joined = join_datasets(
        [dataset("one", train=clips("", "ab")), dataset("two", train=clips("", "cd"))]
    )
    file = tmp_path / "stages.json"
    write_descriptions(file, {label: template_stages(label) for label in "cd"})
    stages = stage_texts(joined, ["train"], file)
    assert stages is not None
    assert set(stages) == {"c", "d"}
    write_descriptions(file, {label: template_stages(label) for label in "abc"})
    with pytest.raises(InputError, match="3 of 4 labels, not 'd'"):
        stage_texts(joined, ["train"], file)
    write_descriptions(file, {label: template_stages(label) for label in "xy"})
    with pytest.raises(InputError, match="0 of 2 labels"):
        stage_texts(dataset("one", train=clips("", "ab")), ["train"], file)


def test_a_method_gets_as_many_stages_as_it_has_or_the_file_is_refused(tmp_path: Path) -> None:
    one = dataset("one", train=clips("", "ab"))
    for count in (1, 3, 5):
        stages = stage_texts(one, ["train"], None, count)
        assert stages == {label: template_stages(label, count) for label in "ab"}
    file = tmp_path / "stages.json"
    write_descriptions(file, {label: template_stages(label, 3) for label in "ab"})
    with pytest.raises(InputError, match=r"stages\.json, 'a'"):
        stage_texts(one, ["train"], file, 1)


def write_index(folder: Path, labels: str, family: str | None) -> Path:
    folder.mkdir()
    rows = ["path,label,split,source_group" + ("" if family is None else ",family")]
    for label in labels:
        (folder / f"{label}.mp4").write_bytes(b"")
        rows.append(f"{label}.mp4,{label},train,{label}" + ("" if family is None else f",{family}"))
    (folder / "index.csv").write_text("\n".join(rows) + "\n")
    return folder / "index.csv"


def test_the_column_family_of_an_index_may_be_left_out(tmp_path: Path) -> None:
    with_family = open_dataset(write_index(tmp_path / "with", "ab", "colours"))
    without = open_dataset(write_index(tmp_path / "without", "cd", None))
    assert {clip.family for clip in with_family.split("train")} == {"colours"}
    assert {clip.family for clip in without.split("train")} == {""}


def test_one_or_several_data_sets_are_opened(tmp_path: Path) -> None:
    one, two = write_index(tmp_path / "x", "ab", "f"), write_index(tmp_path / "y", "cd", None)
    assert open_datasets([one]) == open_dataset(one)
    assert open_datasets([one, two]) == join_datasets([open_dataset(one), open_dataset(two)])
    with pytest.raises(InputError, match="None of the data sets has split files"):
        open_datasets([one, two], root=tmp_path)


def test_the_root_is_that_of_the_split_files(tmp_path: Path) -> None:
    index = write_index(tmp_path / "x", "ab", None)
    lists, videos = tmp_path / "lists", tmp_path / "videos"
    (videos / "jump").mkdir(parents=True)
    (videos / "jump" / "v.mp4").write_bytes(b"")
    lists.mkdir()
    (lists / "train.txt").write_text("train0//jump/v.mp4\n")
    joined = open_datasets([index, lists], root=videos)
    assert joined.labels("train") == ("a", "b", "jump")
    assert [clip.path.parent for clip in joined.split("train")][-1] == videos / "jump"


def test_fit_trains_on_several_data_sets(
    teacher_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, name in enumerate(("one", "two")):
        small = OrderSet(
            families=(2, 1, 1), orders=(5, 6), clips=2, seed=seed, size=32, seconds=1.0
        )
        write_order_set(tmp_path / name, small)
    out = tmp_path / "run"
    small_run = ["episodes=2", "per_step=1", "shots=[1,1]", "draws=0", "val_every=2"]
    small_run += ["val_episodes=2", "val_shots=[1]", "val_queries=1"]
    backbone = ["--backbone", TEACHER, "--backbone-weights", str(teacher_weights), "--blocks", "1"]
    places = ["--data", str(tmp_path / "one"), str(tmp_path / "two" / "index.csv")]
    arguments = ["--method", "task_adapter", *backbone, *places, "--out", str(out)]
    assert fit.main([*arguments, "--device", "cpu", "--set", *small_run]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["steps"] == 2
    assert json.loads((out / "recipe.json").read_text())["data"] == "one+index.csv"
    assert "of one+two" in (out / "card.md").read_text()
