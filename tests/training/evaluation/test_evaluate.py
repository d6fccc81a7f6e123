"""Evaluation: one set of episodes for all, figures by hand, and the service's rule for text."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model.assembly.recognizer import build_recognizer
from model.checkpoint import load_recognizer, save_checkpoint
from model.config.blocks import TaskConfig
from model.episode import Scores
from model.recognizer import Recognizer
from tests.episodes import score_episode
from tests.model.tiny import LABELS, clips, tiny_recognizer, tiny_text
from tests.training.conftest import TEACHER
from training.data.episodes import Episode
from training.evaluate import main
from training.evaluation.tallies import Tally, add_stages, over_episodes, over_seeds
from training.evaluation.variants import as_evaluated, under_context, variants

SMALL = ["--ways", "2", "--shots", "1", "--queries", "1", "--episodes", "12", "--device", "cpu"]


def trained_teacher(weights: Path, seed: int, **changes: object) -> Recognizer:
    """A task adapter on the teacher whose adapters hold noise, as if trained."""
    bare = load_recognizer(TEACHER, weights=weights)
    visual = TaskConfig(blocks=2)
    config = replace(bare.config, **{"visual": visual, "query_context": "support", **changes})
    recognizer = build_recognizer(config, bare.video.tower, None)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in recognizer.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return recognizer


@pytest.fixture(scope="module")
def seeds(teacher_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Checkpoints of two seeds of one method."""
    folder = tmp_path_factory.mktemp("seeds")
    for seed in range(2):
        save_checkpoint(trained_teacher(teacher_weights, seed), folder / str(seed), "made up")
    return [str(folder / "0"), str(folder / "1")]


def last_line(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_accuracy_by_hand() -> None:
    found = over_episodes([0.4, 0.6])
    assert found.mean == pytest.approx(50)
    assert found.interval == pytest.approx(1.96 * math.sqrt(200) / math.sqrt(2))
    assert found.count == 2


def test_the_interval_over_seeds_is_student_s_by_hand() -> None:
    found = over_seeds([50.0, 52.0, 54.0])
    assert (found.mean, found.count) == (52.0, 3)
    assert found.interval == pytest.approx(4.303 * 2 / math.sqrt(3), rel=1e-4)
    assert math.isnan(over_seeds([50.0]).interval)
    many = over_seeds([float(number % 2) for number in range(12)])  # spread sqrt(3 / 11)
    assert many.interval == pytest.approx(2.201 * math.sqrt(3 / 11 / 12), rel=1e-3)  # of a table


def test_a_tally_by_hand() -> None:
    def episode(labels: tuple[str, ...], classes: tuple[int, ...]) -> Episode:
        places = tuple(range(len(classes)))
        return Episode(labels, places, places, places, classes)

    episodes = [episode(("b", "a"), (0, 1, 1, 0)), episode(("a", "c"), (0, 1))]
    answers = [torch.tensor([0, 1, 0, 1]), torch.tensor([0, 0])]
    tally = Tally.of(("a", "b", "c"), episodes, answers)
    assert tally.shares == (0.5, 0.5)
    assert tally.by_class["a"] == pytest.approx(200 / 3)
    assert tally.by_class["c"] == 0
    # a: 2 queries where b could be answered, 1 where c could; b and c never met
    want = [[200 / 3, 50, 0], [50, 50, math.nan], [100, math.nan, 0]]
    np.testing.assert_allclose(tally.confusion, want)
    # shares of each episode's queries: a 0.5 and 1, b 0.5 and not asked, c not asked and 0
    np.testing.assert_allclose(tally.class_shares_EN, [[0.5, 0.5, math.nan], [1, math.nan, 0]])
    assert tally.class_intervals["a"] == pytest.approx(1.96 * math.sqrt(1250) / math.sqrt(2))
    assert math.isnan(tally.class_intervals["b"])


def test_a_difference_is_taken_in_each_episode() -> None:
    zero, none = np.zeros((1, 1), np.int64), np.zeros((2, 1))
    better, base = (Tally(("a",), s, zero, zero, none) for s in ((0.5, 1.0), (0.4, 0.9)))
    found = better.beyond(base)
    assert (found.mean, found.count) == (pytest.approx(10), 2)
    assert found.interval == pytest.approx(0, abs=1e-6)


def test_stage_scores_by_hand() -> None:
    episode = Episode(("b", "a"), (0, 1), (0, 1), (0, 1), (1, 0))  # queries of a, then of b
    stages_QNA = torch.tensor([[[0.1, 0.2], [0.5, 0.7]], [[0.8, 0.6], [0.3, 0.4]]])
    nothing = torch.zeros(2, 2)
    score = Scores(nothing, nothing, stages_QNA, nothing, nothing)
    without = replace(score, text_QN=None, stages_QNA=None)
    labels = ("a", "b", "c")
    assert add_stages(None, labels, [episode], [without]) is None
    once = add_stages(None, labels, [episode, episode], [score, without])
    tally = add_stages(once, labels, [episode], [score])
    assert tally is not None
    np.testing.assert_allclose(tally.own, [[0.5, 0.7], [0.8, 0.6], [math.nan] * 2], rtol=1e-6)
    np.testing.assert_allclose(tally.others, [[0.1, 0.2], [0.3, 0.4], [math.nan] * 2], rtol=1e-6)


def test_seeds_are_joined_episode_by_episode() -> None:
    zero = np.zeros((1, 1), np.int64)
    shares = np.array([[0.0], [1.0]])
    joined = Tally.over_seeds([Tally(("a",), (0.0, 1.0), zero, zero + 2, shares)] * 2)
    assert joined.shares == (0.0, 1.0)
    assert joined.asked_NN.item() == 4
    other = Tally.over_seeds(
        [Tally(("a",), s, zero, zero, shares) for s in ((0.0, 1.0), (1.0, 0.0))]
    )
    assert other.accuracy.interval == 0


def test_an_untrained_method_is_evaluated_without_its_adapters(teacher_weights: Path) -> None:
    bare = load_recognizer(TEACHER, weights=teacher_weights)
    config = replace(bare.config, visual=TaskConfig(blocks=2), query_context="support")
    untrained = build_recognizer(config, bare.video.tower, None)
    assert not as_evaluated(untrained).video.adapted
    trained = trained_teacher(teacher_weights, 0)
    assert as_evaluated(trained) is trained


def test_another_context_has_the_same_weights_and_towers(teacher_weights: Path) -> None:
    own = trained_teacher(teacher_weights, 0)
    other = under_context(own, "joint")
    assert other.transductive
    assert not own.transductive
    assert other.video.tower is own.video.tower
    wanted = own.state_dict()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in other.state_dict().items())


@pytest.mark.parametrize(
    "changes", [{"query_context": "joint"}, {"query_context": "self", "align": "joint"}]
)
def test_what_is_transductive_is_followed_by_itself_without(changes: dict[str, object]) -> None:
    joint, alone = variants(tiny_recognizer(**changes), [])
    assert joint.transductive
    assert alone.config.query_context == "self"
    assert not alone.transductive


@pytest.mark.parametrize("cosine", ["frames", "mean"])
def test_one_query_by_itself_scores_as_its_joint_alignment_does_without_others(
    cosine: str,
) -> None:
    joint = tiny_recognizer(query_context="self", align="joint", stage_cosine=cosine)
    _, alone = variants(joint, [])
    support, query = joint.trunk(clips(3, seed=1)), joint.trunk(clips(1, seed=2))
    text_NAE = tiny_text(joint, LABELS[:3])
    for_joint, for_alone = (
        score_episode(one, support, [0, 1, 2], query, text_NAE) for one in (joint, alone)
    )
    torch.testing.assert_close(for_alone.stages_QNA, for_joint.stages_QNA, atol=1e-6, rtol=0)


def test_an_alignment_over_queries_does_not_matter_to_a_method_without_text(
    teacher_weights: Path,
) -> None:
    recognizer = trained_teacher(teacher_weights, 0, query_context="self", align="joint")
    assert variants(recognizer, []) == [recognizer]


def test_the_command_prints_checkpoint_and_teacher_as_json(
    indexed: Path, teacher_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--checkpoint", "compact", "--data", str(indexed / "index.csv")]
    sizes = ["--ways", "2", "--shots", "1", "2", "--queries", "1", "--episodes", "5"]
    teacher = ["--teacher", TEACHER, "--teacher-weights", str(teacher_weights)]
    assert main([*arguments, *sizes, *teacher]) == 0
    result = last_line(capsys)
    assert [(row["checkpoint"], row["shots"]) for row in result["rows"]] == [
        ("compact", 1),
        ("compact", 2),
        (TEACHER, 1),
        (TEACHER, 2),
    ]
    assert all(0 <= row["accuracy"] <= 100 for row in result["rows"])
    assert {"split", "ways", "shots", "queries", "episodes", "seed"} <= set(result)
    assert result["over_seeds"] == []


def test_few_labels_without_a_split_are_asked_and_a_torn_clip_is_named(
    indexed: Path, teacher_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for video in indexed.glob("*.mp4"):
        label = tmp_path / "clips" / video.stem.rpartition("_")[0]
        label.mkdir(parents=True, exist_ok=True)
        (label / video.name).symlink_to(video)
    torn = tmp_path / "clips" / "val_2" / "torn.mp4"
    torn.write_bytes(next(indexed.glob("*.mp4")).read_bytes()[:300])
    shutil.rmtree(tmp_path / "clips" / "test_4")
    teacher = ["--checkpoint", TEACHER, "--backbone-weights", str(teacher_weights)]
    sizes = ["--shots", "1", "--queries", "1", "--episodes", "5"]
    assert main([*teacher, "--data", str(tmp_path / "clips"), *sizes]) == 0
    told = capsys.readouterr()
    result = json.loads(told.out.splitlines()[-1])
    assert (result["ways"], len(result["labels"])) == ([4], 4)
    assert "1 of 17 clips cannot be read and are left out:" in told.err
    assert str(torn) in told.err
    assert main([*teacher, "--data", str(indexed), "--split", "all", *sizes]) == 0
    assert (ways := last_line(capsys))["ways"] == [5], ways


def test_seeds_contexts_and_the_report_of_a_trained_method(
    indexed: Path,
    teacher_weights: Path,
    seeds: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["--checkpoint", *seeds, "--backbone-weights", str(teacher_weights)]
    places = ["--data", str(indexed), "--cache", str(tmp_path / "cache")]
    wanted = ["--contexts", "self", "joint", "--plots", str(tmp_path / "plots")]
    assert main([*arguments, *places, *wanted, *SMALL]) == 0
    cached = last_line(capsys)
    contexts = [(row["query_context"], row["transductive"]) for row in cached["rows"]]
    assert contexts == [("support", False), ("self", False), ("joint", True)] * 2
    assert [row["query_context"] for row in cached["over_seeds"]] == ["support", "self", "joint"]
    for row in cached["over_seeds"]:
        same = [r for r in cached["rows"] if r["query_context"] == row["query_context"]]
        assert row["seeds"] == 2
        assert row["accuracy"] == pytest.approx(np.mean([r["accuracy"] for r in same]), abs=0.01)
    [report] = (tmp_path / "plots").iterdir()
    assert [report.name] == cached["plots"] == ["report.html"]
    page = report.read_text()
    assert "mean of 2 seeds, queries see joint (transductive)" in page
    assert f"--plots {tmp_path / 'plots'}" in page
    first = cached["over_seeds"][0]
    for row, label in zip(first["answered"], cached["labels"], strict=True):
        assert label in page
        assert all(f">{count}</text>" in page for count in row)
    differing = [row["beyond"]["mean"] for row in cached["over_seeds"][1:]]
    gains = [row["accuracy"] - first["accuracy"] for row in cached["over_seeds"][1:]]
    assert differing == pytest.approx(gains, abs=0.02)
    assert sum(kept.is_dir() for kept in (tmp_path / "cache").iterdir()) == 1
    assert main([*arguments, "--data", str(indexed), *SMALL]) == 0
    held = last_line(capsys)
    assert held["rows"][0]["accuracy"] == cached["rows"][0]["accuracy"]


def test_a_written_list_read_again_gives_the_figures_of_what_was_drawn(
    indexed: Path, teacher_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, file = str(indexed), str(tmp_path / "episodes.json")
    teacher = ["--checkpoint", TEACHER, "--backbone-weights", str(teacher_weights)]
    sizes = ["--ways", "2", "--shots", "1", "2", "--queries", "1", "--episodes", "9"]
    assert main([*teacher, "--data", data, *sizes, "--write-list", file]) == 0
    drawn = last_line(capsys)
    assert main([*teacher, "--data", data, "--list", file]) == 0
    assert last_line(capsys)["rows"] == drawn["rows"]
    assert main([*teacher, "--data", data, "--list", file, "--episodes", "9"]) == 2
    assert main([*teacher, "--data", data, "--list", file, "--split", "train"]) == 2


def test_bad_input_is_one_sentence_and_exit_code_2(
    indexed: Path, seeds: list[str], teacher_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--data", str(indexed / "index.csv")]
    teacher = ["--checkpoint", TEACHER, "--backbone-weights", str(teacher_weights)]
    assert main(["--data", str(indexed / "none.csv")]) == 2
    assert main([*data, "--split", "nope"]) == 2
    assert main([*data, "--ways", "2", "--shots", "1", "--checkpoint", "no/such/folder"]) == 2
    assert main([*data, "--ways", "5", "20"]) == 2
    assert main([*data, *teacher, *SMALL, "--contexts", "self"]) == 2
    mixed = ["--checkpoint", seeds[0], TEACHER, "--backbone-weights", str(teacher_weights)]
    assert main([*data, *mixed, *SMALL]) == 2
    told = capsys.readouterr().err.splitlines()
    said = [line for line in told if line.startswith("evaluate: ")]
    assert len(said) == 6
    assert "5 ways need as many classes; there are 2" in said[3]
    assert "no task adapter" in said[4]
    assert "no seeds of one method" in said[5]
