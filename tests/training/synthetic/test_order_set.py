"""`python -m training.synthetic`: families of labels that differ in the order of motions alone."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from model.media.container import UNLIMITED
from model.media.video import read_clip
from training.data.datasets import open_dataset
from training.data.descriptions_file import read_descriptions, stages_of
from training.data.episodes import EpisodePlan, EpisodeSampler
from training.errors import InputError
from training.features.clip_views import read_frames
from training.synthetic.__main__ import main
from training.synthetic.order_set import OrderSet, divided, draw_families, write_order_set

SMALL = ["--size", "48", "--seconds", "1", "--fps", "8", "--processes", "1"]


def command(out: Path, *more: str) -> list[str]:
    return ["--out", str(out), "--families", "3", "--orders", "5..6", "--clips", "2", *SMALL, *more]


def assert_same(one: Path, two: Path) -> None:
    """Names and the index are equal, and every frame but for the encoder's rounding."""
    first, second = files(one), files(two)
    assert first.keys() == second.keys()
    assert first["index.csv"] == second["index.csv"]
    for name in first:
        if name.endswith(".mp4"):
            frames = [
                read_clip(folder / name, frames=8, size=32, limits=UNLIMITED).frames_THWC
                for folder in (one, two)
            ]
            apart = np.abs(frames[0].astype(int) - frames[1].astype(int))
            assert apart.mean() < 2, name


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_written_set_is_a_data_set_of_families(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "orders"
    assert main(command(out)) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["families"] == {"train": 1, "val": 1, "test": 1}
    data = open_dataset(out / "index.csv")
    assert told["clips"] == sum(len(clips) for clips in data.clips.values())
    for split in ("train", "val", "test"):
        assert {clip.family for clip in data.split(split)} == {f"{split}-000"}
        assert 5 <= len(data.labels(split)) <= 6
        sampler = EpisodeSampler(data.split(split), EpisodePlan(5, 1, 1), 0)
        movers = {label.rpartition(" then ")[0].split()[0] for label in sampler.draw(0).labels}
        assert len(movers) == 1
    labels = [label for split in data.clips for label in data.labels(split)]
    stages = stages_of(read_descriptions(out / "descriptions.json"), labels, out)
    first = labels[0].split(" then ")[1]
    assert stages[labels[0]][1].endswith(f"{first}.")
    assert read_frames(data.split("val")[0], frames=8, size=48).shape == (8, 48, 48, 3)


def test_labels_of_a_family_differ_in_order_alone() -> None:
    families = draw_families({"train": 30, "val": 4, "test": 4}, (5, 6), 3, carried=False)
    for family in families:
        assert len({action.mover for action in family.actions}) == 1
        assert len({frozenset(action.motions) for action in family.actions}) == 1
        assert len({action.motions for action in family.actions}) == len(family.actions) >= 5
        assert {action.split for action in family.actions} == {family.split}
    labels = [action.label for family in families for action in family.actions]
    assert len(set(labels)) == len(labels)


def test_more_families_leave_the_first_ones_as_they_are() -> None:
    few = draw_families({"train": 2, "val": 1}, (5, 6), 0, carried=False)
    many = draw_families({"train": 9, "val": 3}, (5, 6), 0, carried=False)
    assert set(few) <= set(many)


@pytest.mark.parametrize(("families", "train"), [(3, 1), (10, 6), (60, 42)])
def test_families_are_divided_among_splits(families: int, train: int) -> None:
    counts = divided(families)
    assert counts[0] == train
    assert sum(counts) == families
    assert min(counts) >= 1


def test_a_set_is_the_same_however_it_was_written(tmp_path: Path) -> None:
    made = OrderSet(families=(1, 1, 1), orders=(5, 5), clips=2, size=32, seconds=1.0)
    write_order_set(tmp_path / "one", made)
    write_order_set(tmp_path / "two", made, processes=2)
    assert_same(tmp_path / "one", tmp_path / "two")
    lost = next((tmp_path / "two").rglob("*.mp4"))
    lost.unlink()
    write_order_set(tmp_path / "two", made)
    assert_same(tmp_path / "one", tmp_path / "two")


def test_a_killed_command_leaves_no_index_and_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "set"
    size = ["--families", "3", "--orders", "6", "--clips", "20", "--size", "96", "--processes", "2"]
    run = [sys.executable, "-m", "training.synthetic", "--out", str(out), *size]
    root = Path(__file__).parents[3]
    process = subprocess.Popen(run, cwd=root, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 60
    while not list(out.rglob("*.mp4")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert not (out / "index.csv").exists()
    while _alive(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(process.pid), "a worker outlived the command"
    before = {path: path.stat().st_mtime_ns for path in out.rglob("[!.]*.mp4")}
    assert before
    assert main([*run[3:]]) == 0
    assert len((out / "index.csv").read_text().splitlines()) == 1 + 3 * 6 * 20
    assert before.items() <= {p: p.stat().st_mtime_ns for p in out.rglob("*.mp4")}.items()
    assert not list(out.rglob(".*"))


def _alive(group: int) -> bool:
    """Tell whether a process of the group still runs."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return any(
        (stat := _stat(path)) and stat[2] == str(group) and stat[0] != "Z"
        for path in Path("/proc").glob("[0-9]*/stat")
    )


def _stat(path: Path) -> list[str]:
    try:
        return path.read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["--orders", "1..6"], "three motions have 2 to 6"),
        (["--orders", "many"], "give 6, or a range 5..6"),
        (["--families", "2"], "2 families are too few"),
        (["--families", "900"], "there are 400 movers"),
        (["--clips", "1"], "clips is 1; it should be greater than or equal to 2"),
        (["--size", "33"], "size is 33; it should be a multiple of 2"),
        (["--seconds", "0"], "make no clip"),
        (["--seed", "-1"], "seed is -1; it should be greater than or equal to 0"),
    ],
)
def test_what_makes_no_set_is_told_and_nothing_is_written(
    change: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command(tmp_path / "out"), *change]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_of_other_values_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(tmp_path / "out")) == 0
    kept = files(tmp_path / "out")
    assert main(command(tmp_path / "out", "--carried")) == 2
    assert "belongs to a recipe with another 'order_set'" in capsys.readouterr().err
    assert files(tmp_path / "out") == kept


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be used"):
        write_order_set(tmp_path / "file", OrderSet(families=(1, 1, 1)))
