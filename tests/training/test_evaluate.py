"""Evaluation: one set of episodes for all, an interval, and the service's rule for text."""

import json
import math
from pathlib import Path

import pytest
import torch

from model.checkpoint import load_recognizer
from tests.training.conftest import TEACHER
from training.datasets import open_dataset
from training.episodes import draw_episode
from training.evaluate import Accuracy, EpisodeScorer, evaluate, main


def test_accuracy_by_hand() -> None:
    found = Accuracy.of([0.4, 0.6])
    assert found.mean == pytest.approx(50)
    assert found.interval == pytest.approx(1.96 * math.sqrt(200) / math.sqrt(2))
    assert found.episodes == 2


def test_the_same_seed_gives_the_same_figure(indexed: Path, teacher_weights: Path) -> None:
    clips = open_dataset(indexed / "index.csv").split("test")
    scorer = EpisodeScorer(load_recognizer(TEACHER, weights=teacher_weights), clips)
    sizes = {"ways": 2, "shots": 2, "queries": 1, "episodes": 20}
    first = evaluate(scorer, clips, **sizes, seed=3)
    assert first == evaluate(scorer, clips, **sizes, seed=3)
    assert first.episodes == 20


def test_features_extracted_once_score_as_a_whole_episode_does(
    indexed: Path, teacher_weights: Path
) -> None:
    clips = open_dataset(indexed / "index.csv").split("test")
    recognizer = load_recognizer(TEACHER, weights=teacher_weights)
    with torch.inference_mode():
        scorer = EpisodeScorer(recognizer, clips)
        slow = EpisodeScorer(recognizer, clips)
        slow.by_task = True
        slow.held = torch.stack([slow._encode(clip) for clip in clips])
        for number in range(5):
            episode = draw_episode(clips, ways=2, shots=2, queries=2, seed=0, number=number)
            assert scorer.share_right(episode) == slow.share_right(episode)


def test_the_command_prints_checkpoint_and_teacher_as_json(
    indexed: Path, teacher_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--checkpoint", "compact", "--data", str(indexed / "index.csv")]
    sizes = ["--ways", "2", "--shots", "1", "2", "--queries", "1", "--episodes", "5"]
    teacher = ["--teacher", TEACHER, "--teacher-weights", str(teacher_weights)]
    assert main([*arguments, *sizes, *teacher]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [(row["checkpoint"], row["shots"]) for row in result["rows"]] == [
        ("compact", 1),
        ("compact", 2),
        (TEACHER, 1),
        (TEACHER, 2),
    ]
    assert all(0 <= row["accuracy"] <= 100 for row in result["rows"])


def test_bad_input_is_one_sentence_and_exit_code_2(
    indexed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = str(indexed / "index.csv")
    assert main(["--data", str(indexed / "none.csv")]) == 2
    assert main(["--data", index, "--split", "nope"]) == 2
    assert main(["--data", index, "--checkpoint", "no/such/folder"]) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 3
    assert all(line.startswith("evaluate: ") for line in told)
