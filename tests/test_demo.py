"""The demo's parts: how tasks are drawn, how accuracy is counted, what is left behind."""

import random
from pathlib import Path

import pytest

from deploy.clip_folder import (
    ClipFolderError,
    LabelledClip,
    choose_labels,
    draw_task,
    read_folder,
)
from deploy.demo import parser
from deploy.intervals import of_answers, of_tasks
from deploy.local_service import LocalServiceError, local_service


def make_folder(folder: Path, *, index: bool) -> Path:
    """Make `clips/<label>/<n>.mp4`, empty files, three recordings a label, two clips each."""
    rows = ["path,label,split,source_group"]
    for label, split in (("run", "test"), ("sit", "test"), ("walk", "train")):
        (folder / "clips" / label).mkdir(parents=True)
        for number in range(6):
            path = folder / "clips" / label / f"{number}.mp4"
            path.touch()
            rows.append(f"clips/{label}/{number}.mp4,{label},{split},room{number // 2}")
    if index:
        (folder / "index.csv").write_text("\n".join(rows) + "\n")
    return folder / "clips"


def test_support_and_queries_come_from_different_recordings(tmp_path: Path) -> None:
    clips = choose_labels(read_folder(make_folder(tmp_path, index=True)), [], "test")
    for seed in range(50):
        task = draw_task(clips, random.Random(seed), ways=2, shots=2, queries=9)
        for label, support in task.support.items():
            used = {clip.group for clip in support}
            asked = [clip for clip in task.queries if clip.label == label]
            assert len(support) == 2
            assert asked
            assert not used & {clip.group for clip in asked}


def test_without_an_index_they_are_different_files(tmp_path: Path) -> None:
    clips = choose_labels(read_folder(make_folder(tmp_path, index=False)), [], "test")
    assert set(clips) == {"run", "sit", "walk"}
    task = draw_task(clips, random.Random(0), ways=3, shots=5, queries=5)
    support = {clip.path for row in task.support.values() for clip in row}
    assert len(support) == 15
    assert {clip.path for clip in task.queries}.isdisjoint(support)
    assert len(task.queries) == 3


def test_the_index_chooses_the_labels_of_its_test_split(tmp_path: Path) -> None:
    clips = read_folder(make_folder(tmp_path, index=True))
    assert set(choose_labels(clips, [], "test")) == {"run", "sit"}
    assert set(choose_labels(clips, ["walk", "sit"], "test")) == {"walk", "sit"}


def test_same_seed_same_task(tmp_path: Path) -> None:
    clips = choose_labels(read_folder(make_folder(tmp_path, index=True)), [], "test")
    one, two = (draw_task(clips, random.Random(7), ways=2, shots=1, queries=2) for _ in range(2))
    assert one == two


@pytest.mark.parametrize(
    ("labels", "said"), [(["fly"], "No clips of 'fly'; there are"), (["sit"], "1 label is not")]
)
def test_labels_that_make_no_task_are_refused(tmp_path: Path, labels: list[str], said: str) -> None:
    clips = read_folder(make_folder(tmp_path, index=True))
    with pytest.raises(ClipFolderError, match=said):
        choose_labels(clips, labels, "test")


def test_a_folder_without_clips_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ClipFolderError, match="holds no clips"):
        read_folder(tmp_path)
    with pytest.raises(ClipFolderError, match="is no folder"):
        read_folder(tmp_path / "nowhere")


def test_too_few_recordings_are_refused() -> None:
    clips = {
        label: [LabelledClip(Path(f"{label}{n}"), label, "one room", "") for n in range(4)]
        for label in ("run", "sit")
    }
    with pytest.raises(ClipFolderError, match="4 clips from 1 recordings"):
        draw_task(clips, random.Random(0), ways=2, shots=1, queries=1)


def test_wilson_interval_by_hand() -> None:
    found = of_answers(9, 10)
    assert found.mean == pytest.approx(0.9)
    assert (found.low, found.high) == pytest.approx((0.5958, 0.9821), abs=1e-4)
    assert of_answers(10, 10).high == pytest.approx(1.0)


def test_interval_of_tasks_is_students() -> None:
    found = of_tasks([0.4, 0.5, 0.6, 0.7, 0.8])
    # t = 2.776 with 4 degrees of freedom; standard deviation 0.1581
    assert found.mean == pytest.approx(0.6)
    assert found.high - found.mean == pytest.approx(2.776 * 0.15811 / 5**0.5, rel=0.01)
    assert of_tasks([0.5]).interval == [0.0, 1.0]


def test_defaults_are_the_documented_ones() -> None:
    options = parser().parse_args([])
    assert (options.seed, options.ways, options.episodes, options.split) == (0, 5, 2000, "test")


def test_a_service_that_cannot_start_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KSHOT_NO_SUCH_SETTING", "1")
    with pytest.raises(LocalServiceError, match="KSHOT_NO_SUCH_SETTING"), local_service():
        pass
