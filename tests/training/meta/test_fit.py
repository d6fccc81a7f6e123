"""`python -m training.fit` end to end on real clips: it trains, resumes, refuses, and serves."""

import json
import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from model.checkpoint import load_recognizer
from tests.forked import ForkedCommand
from tests.training.conftest import TEACHER
from training.data.datasets import DataChoice
from training.evaluation.fitting import mean_feature
from training.features.readable import readable
from training.features.tokens import DecodedTokens
from training.fit import main
from training.meta.choice import MethodChoice
from training.meta.fit import FitJob
from training.meta.recipe import FitRecipe
from training.synthetic.actions import draw_action
from training.synthetic.rendering import write_clip

KILLS = int(os.environ.get("KSHOT_KILLS", "2"))
SMALL = [
    "episodes=12", "per_step=2", "ways=[2,3]", "shots=[1,2]", "draws=1", "val_every=2",
    "val_episodes=2", "val_shots=[1]", "val_queries=2", "lr=0.01",
]  # fmt: skip


@pytest.fixture(scope="session")
def data(base_classes: Path) -> Path:
    return base_classes


def command(data: Path, weights: Path, out: Path, *more: str) -> list[str]:
    backbone = ["--backbone", TEACHER, "--backbone-weights", str(weights), "--blocks", "2"]
    places = ["--data", str(data), "--out", str(out), "--cache", str(out.parent / "cache")]
    small = ["--precision", "fp32", "--device", "cpu", "--frames", "3", "--set", *SMALL]
    return ["--method", "task_adapter", *backbone, *places, *small, *more]


def start(arguments: list[str]) -> ForkedCommand:
    return ForkedCommand("training.fit", arguments)


def test_a_trained_folder_holds_what_is_served_and_how_it_came(
    data: Path, teacher_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert main(command(data, teacher_weights, out)) == 0
    said = capsys.readouterr()
    told = json.loads(said.out.splitlines()[-1])
    assert told["steps"] == 6
    for clips in (17, 9):  # of train, and of val
        assert f"1 of {clips} clips cannot be read and are left out:" in said.err
    assert {"best_step", "best_val", "untrained_val", "trained_parameters"} <= set(told)
    recognizer = load_recognizer(str(out), weights=teacher_weights)
    assert recognizer.config.query_context == "support"
    assert recognizer.trained == (told["best_step"] > 0)
    assert recognizer.calibration.source.endswith("val classes")
    assert recognizer.calibration.video[0].fit is not None
    lines = (out / "history.csv").read_text().splitlines()
    assert lines[0].split(",")[0] == "step"
    assert len(lines) == 1 + 1 + 6  # head, the untrained method, steps
    assert (out / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert "Test labels were not read" in " ".join((out / "card.md").read_text().split())
    assert json.loads((out / "recipe.json").read_text())["recipe"]["lr"] == 0.01
    assert "torch" in json.loads((out / "environment.json").read_text())


def test_a_killed_run_goes_on_to_the_weights_of_an_undisturbed_one(
    data: Path, teacher_weights: Path, tmp_path: Path
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    longer = "episodes=32"
    undisturbed = start(command(data, teacher_weights, whole, longer))
    assert undisturbed.wait() == 0
    chance = random.Random(0)
    state = killed / "fit_state.pt"
    for _ in range(KILLS):
        before = state.stat().st_mtime_ns if state.exists() else 0
        process = start(command(data, teacher_weights, killed, longer))
        while process.alive and not (state.exists() and state.stat().st_mtime_ns > before):
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.2))
        process.kill()
        assert process.wait(0) == -signal.SIGKILL, "it had ended before it was killed"
    last = start(command(data, teacher_weights, killed, longer))
    assert last.wait() == 0
    states = [torch.load(out / "fit_state.pt", weights_only=True) for out in (whole, killed)]
    for name, tensor in states[0]["learner"]["trained"].items():
        assert torch.equal(tensor, states[1]["learner"]["trained"][name]), name
    best = [load_file(out / "weights.safetensors") for out in (whole, killed)]
    assert best[0].keys() == best[1].keys()
    assert all(torch.equal(best[0][name], best[1][name]) for name in best[0])
    rows = [[row["loss"] for row in state["history"]["rows"][1:]] for state in states]
    assert rows[0] == rows[1]


def test_adapters_learn_on_from_a_checkpoint_of_the_same_method(
    data: Path, teacher_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = command(data, teacher_weights, tmp_path / "first")
    assert main(first) == 0
    small = ["lr=1e-12", "episodes=2", "average=0"]
    second = command(data, teacher_weights, tmp_path / "second", *small)
    assert main([*second, "--start", str(tmp_path / "first")]) == 0
    before, after = (
        load_file(tmp_path / name / "weights.safetensors") for name in ("first", "second")
    )
    assert before.keys() == after.keys()
    assert any(value.abs().max() > 1e-3 for value in before.values())
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in before)
    other = command(data, teacher_weights, tmp_path / "third")
    assert main([*other, "--start", str(tmp_path / "first"), "--blocks", "1"]) == 2
    assert "give the same --backbone" in capsys.readouterr().err
    assert not (tmp_path / "third").exists()


def test_a_folder_of_another_recipe_is_refused(
    data: Path, teacher_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert main(command(data, teacher_weights, out)) == 0
    assert main(command(data, teacher_weights, out, "seed=1")) == 2
    assert "belongs to a recipe with another 'recipe'" in capsys.readouterr().err


def test_a_folder_of_the_first_version_belongs_to_the_same_job() -> None:
    method = MethodChoice(preset="aim", backbone="timm:x", backbone_weights=Path("here/x.npz"))
    data = DataChoice(data=(Path("a/one"), Path("b/two")))
    job = FitJob(method=method, recipe=FitRecipe(), data=data, out=Path("runs/mine"))
    assert json.loads(json.dumps(job.claim(None))) == {
        "method": {
            "preset": "aim", "backbone": "timm:x", "backbone_weights": "x.npz", "blocks": None,
            "text_blocks": None, "ratio": None, "query_context": None, "frames": None,
            "matcher": "prototype", "at_input": False,
        },
        "data": "one+two",
        "descriptions": None,
        "text": True,
        "start": None,
        "recipe": {
            "episodes": 2000, "per_step": 4, "ways": [5, 5], "shots": [1, 5], "queries": 1,
            "optimizer": "adamw", "lr": 0.001, "place_rate": 1.0, "weight_decay": 0.05,
            "warmup": 0.05, "schedule": "cosine", "clip": 1.0, "average": 0.99, "dropout": 0.1,
            "drop_path": 0.0, "smoothing": 0.0, "temperature": 6.0, "near_frozen": 0.0,
            "near_frozen_textless": 0.0, "near_start_textless": 0.0, "consistency": 0.0,
            "stages": 0.0, "patches": 1.0, "text_dropout": 0.0, "draws": 2, "mirror": 0.5,
            "val_every": 50, "val_episodes": 200, "val_shots": [1, 5], "val_queries": 5,
            "patience": 0, "seed": 0,
        },
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("learning_rate=1", "no field 'learning_rate'"),
        ("lr=fast", "lr is 'fast'; it should be a valid number"),
        ("lr=0", "lr is 0; it should be greater than 0"),
        ("ways=[5,2]", "[5, 2] ends before it starts"),
        ("ways=[1,2]", "ways.0 is 1; it should be greater than or equal to 2"),
        ("patches=0", "patches is 0; it should be greater than 0"),
        ("dropout=1", "dropout is 1; it should be less than 1"),
        ("shots=[9,9]", "too small for 9 shots"),
        ("lr", "no '='"),
        ('weights={"qurey":1}', "There is no loss 'qurey'; choose of base_class, "),
        ("val_shots=[9]", "too small for 9 shots"),
        ("consistency=1", "compares draws, and its draws are 1"),
    ],
)
def test_what_does_not_fit_is_one_sentence_and_leaves_no_checkpoint(
    change: str,
    said: str,
    data: Path,
    teacher_weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "run"
    assert main(command(data, teacher_weights, out, change)) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("fit: ")
    assert said in error
    assert not (out / "weights.safetensors").exists()


def test_a_loss_beyond_numbers_ends_with_the_remedy(
    data: Path, teacher_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    wild = ["lr=1e30", "optimizer=sgd", "clip=0", "warmup=0", "schedule=constant", "average=0"]
    assert main(command(data, teacher_weights, out, *wild)) == 2
    assert "lower lr" in capsys.readouterr().err.splitlines()[-1]
    assert load_recognizer(str(out), weights=teacher_weights).config.frames == 3


def test_patience_stops_a_run_that_gets_no_better(
    data: Path, teacher_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    still = ["lr=1e-12", "patience=2", "episodes=100"]
    assert main(command(data, teacher_weights, out, *still)) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["best_step"] == 0
    assert told["steps"] == 4  # two validations that are no better


@pytest.mark.parametrize(
    ("more", "learned"),
    [
        (["--at-input"], "video.temporal_embedding"),
        (["--method", "clip_fsar"], "video.tower.model.patch_embed.proj.weight"),
    ],
)
def test_a_trunk_that_learns_runs_on_frames_at_every_step_and_leaves_no_cache(
    more: list[str], learned: str, data: Path, teacher_weights: Path, tmp_path: Path
) -> None:
    few = ["episodes=4", "queries=1", "warmup=0"]
    assert main([*command(data, teacher_weights, tmp_path / "run", *few), *more]) == 0
    state = torch.load(tmp_path / "run" / "fit_state.pt", weights_only=True)["learner"]
    trained = state["trained"][learned]
    tower = load_recognizer(TEACHER, weights=teacher_weights).state_dict()
    assert not torch.allclose(trained, tower.get(learned, torch.zeros_like(trained)), atol=1e-4)
    assert learned in load_file(tmp_path / "run" / "weights.safetensors")
    assert not list(tmp_path.glob("cache/*/"))


def test_a_calibration_is_of_the_weights_that_val_chose_where_the_trunk_learns(
    data: Path, teacher_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wild = ["lr=0.1", "warmup=0", "schedule=constant", "episodes=8", "average=0"]
    arguments = command(data, teacher_weights, tmp_path / "run", *wild)
    assert main([*arguments, "--method", "frozen", "--tune", "all"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["best_step"] < told["steps"], "else the last weights are the best ones"
    best = load_recognizer(str(tmp_path / "run"), weights=teacher_weights)
    clips = readable(DataChoice(data=(data,)).open().split("train"))
    with torch.inference_mode():
        mean_E = mean_feature(best, DecodedTokens(best, clips), clips)
    torch.testing.assert_close(torch.tensor(best.calibration.mean), mean_E, atol=1e-4, rtol=1e-3)


@pytest.fixture(scope="session")
def own_clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: 20 labels of 5 clips, no list, no splits."""
    folder = tmp_path_factory.mktemp("own") / "my_clips"
    rng = np.random.default_rng(0)
    labels = {action.label: action for action in (draw_action(rng, "train") for _ in range(30))}
    for number, (label, action) in enumerate(list(labels.items())[:20]):
        (folder / label).mkdir(parents=True)
        for take in range(5):
            file = folder / label / f"{take}.mp4"
            write_clip(file, action, 10 * number + take, fps=8, seconds=1.0, size=64)
    return folder


def test_a_users_own_folder_trains_with_the_recipe_as_it_stands(
    own_clips: Path, teacher_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    few = ["shots=[1,5]", "val_shots=[1,5]", "val_queries=5", "episodes=4"]
    assert main(command(own_clips, teacher_weights, out, *few)) == 0
    said = capsys.readouterr().err
    assert "training episodes have at most 3 ways and 4 shots" in said
    assert "1-shot val episodes have 4 queries a label" in said
    assert "no 5-shot val episodes" in said
    assert "training labels are few" in said
    assert "val_1" in (out / "history.csv").read_text().splitlines()[0]
