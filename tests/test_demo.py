"""The demo's parts: how tasks are drawn, how accuracy is counted, what is left behind."""

import os
import signal
import time
from pathlib import Path

import pytest
import torch

from deploy.demo import parser
from deploy.demo_folder import most_queries, read_clips, usable_clips
from deploy.demo_report import of_answers, of_tasks
from deploy.demo_synthetic import draw_actions
from deploy.local_service import LocalServiceError, local_service
from model.assembly.recognizer import build_recognizer
from model.backbones.opening import towers
from model.config.blocks import TaskConfig
from model.config.method import MethodConfig
from model.config.towers import CompactConfig
from tests.episodes import score_episode
from tests.forked import ForkedCommand
from tests.videos import grey_frames, make_video
from training.data.episodes import draw_episode
from training.errors import InputError
from training.evaluation.variants import without_adapters


def descendants(pid: int) -> set[int]:
    """List a process's children, and theirs."""
    try:
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return set()
    children = {int(child) for child in found}
    return children.union(*(descendants(child) for child in children))


def gone(pid: int) -> bool:
    """Say whether a process has ended; one that nobody has waited for has ended too."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


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


@pytest.mark.parametrize("index", [True, False])
def test_support_and_queries_come_from_different_recordings(tmp_path: Path, index: bool) -> None:
    clips = read_clips(make_folder(tmp_path, index=index), [], "test")
    for number in range(20):
        drawn = draw_episode(clips, ways=2, shots=2, queries=2, seed=0, number=number)
        support = {(clips[i].label, clips[i].source_group) for i in drawn.support}
        queries = {(clips[i].label, clips[i].source_group) for i in drawn.query}
        assert not support & queries


def test_without_an_index_every_file_is_a_recording_and_every_label_is_taken(
    tmp_path: Path,
) -> None:
    clips = read_clips(make_folder(tmp_path, index=False), [], "test")
    assert {clip.label for clip in clips} == {"run", "sit", "walk"}
    assert len({clip.source_group for clip in clips}) == len(clips) == 18


def test_the_index_chooses_the_labels_of_its_test_split(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, index=True)
    assert {clip.label for clip in read_clips(folder, [], "test")} == {"run", "sit"}
    assert {clip.label for clip in read_clips(folder, ["walk", "sit"], "test")} == {"walk", "sit"}


def test_queries_are_what_support_leaves(tmp_path: Path) -> None:
    clips = read_clips(make_folder(tmp_path, index=False), [], "test")
    assert [most_queries(clips, shots) for shots in (1, 5, 9)] == [5, 1, 1]


@pytest.mark.parametrize(
    ("labels", "said"), [(["fly"], "No clips of 'fly'; there are"), (["sit"], "1 label is not")]
)
def test_labels_that_make_no_task_are_refused(tmp_path: Path, labels: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_clips(make_folder(tmp_path, index=True), labels, "test")


def test_a_folder_without_clips_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no clips"):
        read_clips(tmp_path, [], "test")
    with pytest.raises(InputError, match="is no folder"):
        read_clips(tmp_path / "nowhere", [], "test")


def test_clips_that_the_service_would_refuse_are_named_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = make_video(grey_frames(8), rate=8)
    for label in ("run", "walk"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "good.mp4").write_bytes(video)
    (tmp_path / "run" / "torn.mp4").write_bytes(video[:300])
    (tmp_path / "walk" / "blink.mp4").write_bytes(make_video(grey_frames(1), rate=30))
    clips = usable_clips(tmp_path, [], "test")
    assert [clip.path.name for clip in clips] == ["good.mp4", "good.mp4"]
    said = capsys.readouterr().err
    assert "2 of 4 clips cannot be read" in said
    assert "torn.mp4" in said
    assert "blink.mp4" in said


def test_the_frozen_counterpart_of_an_untrained_method_scores_the_same() -> None:
    torch.manual_seed(0)
    config = MethodConfig(
        backbone=CompactConfig(size=32, width=24, depth=3, heads=2),
        visual=TaskConfig(blocks=2),
        query_context="support",
        fusion="video",
    )
    recognizer = build_recognizer(config, *towers(config.backbone))
    frozen = without_adapters(recognizer)
    frames_BTHWC = torch.randint(256, (5, 8, 32, 32, 3), dtype=torch.uint8)
    with torch.inference_mode():
        want, found = (
            score_episode(
                one, one.trunk(frames_BTHWC[:4]), [0, 0, 1, 1], one.trunk(frames_BTHWC[4:]), None
            )
            for one in (recognizer, frozen)
        )
    torch.testing.assert_close(found.logits_QN, want.logits_QN)
    assert not frozen.video.adapted


def test_wilson_interval_by_hand() -> None:
    found = of_answers(9, 10)
    assert found.mean == pytest.approx(0.9)
    assert (found.low, found.high) == pytest.approx((0.5958, 0.9821), abs=1e-4)
    assert of_answers(10, 10).high == pytest.approx(1.0)


def test_interval_of_tasks_is_students() -> None:
    found = of_tasks([0.4, 0.5, 0.6, 0.7, 0.8])
    # t = 2.776 with 4 degrees of freedom; standard deviation 0.1581
    assert found.mean == pytest.approx(0.6)
    assert found.high - found.mean == pytest.approx(2.776 * 0.15811 / 5**0.5, rel=1e-3)
    assert of_tasks([0.5]).interval == [0.0, 1.0]


def test_defaults_are_the_documented_ones() -> None:
    options = parser().parse_args([])
    assert (options.seed, options.ways, options.episodes, options.split) == (0, 5, 2000, "test")


def test_labels_of_the_order_demo_differ_in_the_order_alone() -> None:
    actions, course = draw_actions(5, 0, order=True)
    assert len({(action.colour, action.texture, action.shape) for action in actions}) == 1
    assert len({frozenset(action.motions) for action in actions}) == 1
    assert len({action.motions for action in actions}) == 5
    assert {action.split for action in actions} == {"test"}
    assert not course.carried
    with pytest.raises(InputError, match="three motions have 2 to 6"):
        draw_actions(7, 0, order=True)


def test_a_service_that_cannot_start_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KSHOT_NO_SUCH_SETTING", "1")
    with pytest.raises(LocalServiceError, match="KSHOT_NO_SUCH_SETTING"), local_service():
        pass


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_demo_leaves_no_process_and_no_folder(
    tmp_path: Path, number: signal.Signals, status: int
) -> None:
    folder, log = tmp_path / "temporary", tmp_path / "log"
    folder.mkdir()
    asked = ["--ways", "2", "--queries", "1", "--shots", "1"]
    demo = ForkedCommand("deploy.demo", asked, {"TMPDIR": str(folder)}, log)
    started: set[int] = set()
    while len(started) < 2 and demo.alive:
        time.sleep(0.05)  # the service, and at least one of its decoders
        started = descendants(demo.pid)
    os.kill(demo.pid, number)
    assert demo.wait() == status, log.read_text()
    assert len(started) >= 2
    until = time.monotonic() + 5
    while not all(gone(pid) for pid in started) and time.monotonic() < until:
        time.sleep(0.05)
    assert [pid for pid in started if not gone(pid)] == []
    assert list(folder.iterdir()) == []
