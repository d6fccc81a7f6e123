"""`python -m training.compare` end to end: a small matrix, killed and resumed, and its table."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.forked import ForkedCommand
from tests.training.conftest import TEACHER
from training.compare import main
from training.errors import InputError
from training.evaluation.matrix import Matrix, Row, read_matrix
from training.evaluation.results import markdown
from training.meta.recipes.named import RECIPES

SMALL: dict[str, Any] = {
    "backbone": TEACHER,
    "seeds": [0, 1],
    "ways": 5,
    "shots": [1],
    "queries": 2,
    "episodes": 6,
    "set": {
        "episodes": 8, "per_step": 2, "ways": [2, 3], "shots": [1, 2], "draws": 1, "val_every": 2,
        "val_episodes": 2, "val_shots": [1], "val_queries": 2, "lr": 0.01,
    },
    "rows": [
        {"name": "frozen", "preset": "frozen", "train": False, "frames": 3},
        {
            "name": "joint, L = 2", "preset": "task_adapter", "blocks": 2,
            "query_context": "joint", "frames": 3,
        },
    ],
}  # fmt: skip
ADAPTED = ("joint-l-2-seed0", "joint-l-2-seed1")


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("matrix") / "matrix.json"
    file.write_text(json.dumps(SMALL))
    return file


def command(matrix: Path, data: Path, weights: Path, out: Path) -> list[str]:
    cache = ["--cache", str(data.parent / "cache"), "--weights", f"{TEACHER}={weights}"]
    places = ["--matrix", str(matrix), "--data", str(data), "--out", str(out)]
    return [*places, *cache, "--device", "cpu", "--precision", "fp32"]


@pytest.fixture(scope="module")
def finished(
    matrix: Path,
    base_classes: Path,
    teacher_weights: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The folder of a comparison that ran undisturbed."""
    out = tmp_path_factory.mktemp("compared")
    assert main(command(matrix, base_classes, teacher_weights, out)) == 0
    return out


def rows_of(out: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((out / "table.json").read_text())["rows"]
    return rows


def test_every_row_has_its_figures_on_val_and_test(finished: Path) -> None:
    frozen, joint = rows_of(finished)
    assert frozen["trained_parameters"] == 0
    assert frozen["seeds"] == frozen["seconds"] == []
    assert joint["seeds"] == [0, 1]
    assert joint["trained_parameters"] > 0
    assert all(seconds > 0 for seconds in joint["seconds"])
    for split in ("val", "test"):
        assert [(cell["query_context"], cell["shots"]) for cell in frozen[split]] == [("none", 1)]
        read = [(cell["query_context"], cell["transductive"]) for cell in joint[split]]
        assert read == [("joint", True), ("self", False)]
        assert [cell["seeds"] for cell in joint[split]] == [2, 2]
        assert {cell["ways"] for cell in (*frozen[split], *joint[split])} == {2}
    assert "beyond" not in frozen["test"][0]
    for split in ("val", "test"):
        for cell in joint[split]:
            gain = cell["accuracy"] - frozen[split][0]["accuracy"]
            assert cell["beyond"]["mean"] == pytest.approx(gain, abs=0.02)
            assert (cell["beyond"]["base"], cell["beyond"]["episodes"]) == ("frozen", 6)
            assert "shares" not in cell
    page = (finished / "report.html").read_text()
    assert "joint, L = 2, queries see joint (transductive)" in page
    assert "Confusion of joint, L = 2, queries see self: test, 2-way 1-shot" in page
    assert "python -m training.compare --matrix" in page
    assert "Not finished" not in page
    table = (finished / "table.md").read_text()
    assert "| joint, L = 2 (transductive) |" in table
    assert "| joint, L = 2, read with `self` |" in table
    assert "8 training episodes a cell" in table
    assert "2-way on val and 2-way on test" in table


def test_no_cell_is_calibrated_so_that_each_row_scores_as_its_paper_does(finished: Path) -> None:
    assert all((finished / name / "method.json").is_file() for name in ADAPTED)
    assert not list(finished.glob("*/calibration.json"))


def test_what_is_finished_is_not_done_again(
    finished: Path, matrix: Path, base_classes: Path, teacher_weights: Path
) -> None:
    files = {
        path: path.stat().st_mtime_ns for name in ADAPTED for path in finished.glob(f"{name}/*")
    }
    files[finished / "frozen.json"] = (finished / "frozen.json").stat().st_mtime_ns
    table = (finished / "table.md").read_text()
    assert main(command(matrix, base_classes, teacher_weights, finished)) == 0
    assert {path: path.stat().st_mtime_ns for path in files} == files
    assert (finished / "table.md").read_text() == table


def test_rows_of_other_weights_are_not_taken_for_this_comparison_s(
    finished: Path,
    matrix: Path,
    base_classes: Path,
    teacher_weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = tmp_path / f"other{teacher_weights.suffix}"
    shutil.copy(teacher_weights, other)
    table = (finished / "table.md").read_text()
    assert main(command(matrix, base_classes, other, finished)) == 2
    assert "another" in capsys.readouterr().err
    assert (finished / "table.md").read_text() == table


def test_a_killed_comparison_goes_on_to_the_figures_of_an_undisturbed_one(
    finished: Path, matrix: Path, base_classes: Path, teacher_weights: Path, tmp_path: Path
) -> None:
    arguments = command(matrix, base_classes, teacher_weights, tmp_path)
    for wanted in (tmp_path / ADAPTED[0] / "fit_state.pt", tmp_path / ADAPTED[1] / "fit_state.pt"):
        process = ForkedCommand("training.compare", arguments)
        while process.alive and not wanted.is_file():
            time.sleep(0.01)
        process.kill()
        assert wanted.is_file()
        partial = (tmp_path / "report.html").read_text()
        assert "1 row finished, 1 not finished" in partial
    assert "1 of 2 seeds trained (0)" in partial
    assert main(arguments) == 0
    for found, want in zip(rows_of(tmp_path), rows_of(finished), strict=True):
        assert {**found, "seconds": []} == {**want, "seconds": []}
    for name in ADAPTED:
        found, want = (
            load_file(out / name / "weights.safetensors") for out in (tmp_path, finished)
        )
        assert all(bool((found[key] == want[key]).all()) for key in want)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"row": []}, "row: Unexpected keyword argument"),
        ({"rows": [{"name": "a", "preset": "aim", "block": 2}]}, "rows.0.block"),
        ({"rows": [{"name": "a", "preset": "aim", "set": {"lrr": 1}}]}, "no field 'lrr'"),
        ({"rows": [{"name": "a", "preset": "aim", "set": {"episodes": 9}}]}, "budget"),
        ({"rows": [{"name": "a b", "preset": "aim"}, {"name": "A-B", "preset": "aim"}]}, "another"),
        ({"rows": [{"name": "a", "preset": "aim", "query_context": "all"}]}, "query_context"),
        ({"rows": []}, "rows: Tuple should have at least 1 item"),
        ({"shots": []}, "shots: Tuple should have at least 1 item"),
        ({"ways": 1}, "ways: Input should be greater than or equal to 2"),
        ({"seeds": [1, 1]}, "seed twice"),
        ({"recipe": "none.json"}, "'none.json' is neither"),
    ],
)
def test_a_matrix_that_does_not_fit_is_refused(
    change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    file = tmp_path / "matrix.json"
    file.write_text(json.dumps(SMALL | change))
    with pytest.raises(InputError, match=said):
        read_matrix(file)


def test_bad_input_is_one_sentence_before_anything_is_trained(
    finished: Path,
    matrix: Path,
    base_classes: Path,
    teacher_weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def tried(matrix_change: dict[str, Any], out: Path) -> str:
        file = tmp_path / "changed.json"
        file.write_text(json.dumps(SMALL | matrix_change))
        assert main(command(file, base_classes, teacher_weights, out)) == 2
        return capsys.readouterr().err.splitlines()[-1]

    new = tmp_path / "new"
    no_preset = [{"name": "a", "preset": "nope"}]
    assert "no method 'nope'" in tried({"rows": [*SMALL["rows"], *no_preset]}, new)
    deep = [{"name": "a", "preset": "aim", "blocks": 99}]
    assert "99 adapted blocks do not fit" in tried({"rows": deep}, new)
    thin = [{"name": "a", "preset": "aim_top", "ratio": 0.001}]
    assert "Adapters of 0.001 x" in tried({"rows": thin}, new)
    started = [{"name": "a", "preset": "aim_top", "zero_init": False}]
    assert "a method without them" in tried({"rows": started}, new)
    assert "too small for 9 shots" in tried({"shots": [9]}, new)
    assert not new.exists()
    assert "another method, recipe, evaluation" in tried({"episodes": 7}, finished)
    assert main([*command(matrix, base_classes, teacher_weights, new), "--weights", "a"]) == 2
    assert main(command(tmp_path / "no.json", base_classes, teacher_weights, new)) == 2


def test_a_row_keeps_the_matrix_s_changes_and_adds_its_own() -> None:
    row = Row(name="a", preset="aim", set={"lr": 0.1})
    matrix = Matrix(rows=(row,), set={"lr": 0.2, "episodes": 40}, backbone="timm:x")
    recipe = matrix.recipe_of(row, 3)
    assert (recipe.lr, recipe.episodes, recipe.seed) == (0.1, 40, 3)
    assert matrix.choice(row, None).backbone == "timm:x"


def test_a_row_may_train_by_its_presets_own_recipe_at_the_budget_of_all() -> None:
    row = Row(name="a", preset="clip_fsar", recipe="own", set={"lr": 0.1})
    matrix = Matrix(rows=(row,), set={"lr": 0.2, "episodes": 40, "val_every": 7})
    own, recipe = RECIPES["clip_fsar"], matrix.recipe_of(row, 3)
    assert (recipe.lr, recipe.episodes, recipe.val_every, recipe.seed) == (0.1, 40, 7, 3)
    assert (recipe.weights, recipe.schedule) == (own.weights, own.schedule)


def test_the_table_by_hand() -> None:
    def cell(shots: int, mean: float, seeds: float | None) -> dict[str, Any]:
        figures = {"accuracy": mean, "interval_seeds": seeds, "interval_episodes": 0.44}
        return {"query_context": "none", "transductive": False, "shots": shots, **figures}

    row = {
        "name": "a",
        "trained_parameters": 12345,
        "seconds": [10.0, 13.0],
        "best_steps": [5, 7],
        "val": [cell(1, 50.0, 1.25)],
        "test": [cell(1, 40.06, None)],
    }
    assert markdown([row], [1], "none").splitlines()[:3] == [
        "|  | parameters | best step | seconds | val 1-shot | test 1-shot |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| a | 12,345 | 5, 7 | 12 | 50.0 +- 1.2 (0.4) | 40.1 (0.4) |",
    ]
