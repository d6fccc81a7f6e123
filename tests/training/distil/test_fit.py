"""Students: what they learn, that a killed run ends alike, and that a finished one can go on."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from model.checkpoint import load_recognizer
from training.distil.batches import Batches, Pick
from training.distil.fit import main
from training.distil.recipe import VideoRecipe
from training.distil.run import BEFORE_FALL, STATE, going_on, rate
from training.distil.space import fit_space
from training.distil.target_files import TargetFiles
from training.meta.muon import orthogonal

TOWER = ["--size", "32", "--widths", "8", "8", "16", "16", "--depths", "1", "1", "1", "1"]
BRIEF = ["--pictures", "4", "--clips", "2", "--features", "8", "--check-every", "50"]


def arguments(targets: Path, out: Path, steps: int = 4) -> list[str]:
    return ["--targets", str(targets), "--out", str(out), "--steps", str(steps), *TOWER, *BRIEF]


def assert_same_weights(one: Path, two: Path) -> None:
    first, second = (load_file(folder / "weights.safetensors") for folder in (one, two))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def undisturbed(targets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed")
    assert main(arguments(targets, out)) == 0
    return out


def test_the_folder_is_a_checkpoint(undisturbed: Path) -> None:
    recognizer = load_recognizer(str(undisturbed))
    assert recognizer.video.token_shape() == (8, 1, 8)
    assert "train action 0" in (undisturbed / "card.md").read_text()


def test_a_run_that_was_stopped_ends_with_the_same_weights(
    targets: Path, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert main([*arguments(targets, tmp_path), "--max-seconds", "0"]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (last["finished"], last["steps"]) == (False, 2)
    assert main(arguments(targets, tmp_path)) == 0
    assert_same_weights(tmp_path, undisturbed)


def test_a_finished_run_goes_on_from_before_its_fall(
    targets: Path, undisturbed: Path, tmp_path: Path
) -> None:
    longer, whole = tmp_path / "longer", tmp_path / "whole"
    shutil.copytree(undisturbed, longer)
    assert going_on(longer, 6, VideoRecipe()) == longer / BEFORE_FALL
    assert going_on(longer, 4, VideoRecipe()) == longer / STATE
    assert main(arguments(targets, longer, 6)) == 0
    assert main(arguments(targets, whole, 6)) == 0
    assert_same_weights(longer, whole)


def test_the_rate_is_level_until_it_falls_to_zero() -> None:
    recipe = VideoRecipe(warmup=4, fall=0.25)
    rates = [rate(step, 16, recipe) for step in range(17)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1, 1]
    assert rates[11:] == [1, 1, 0.75, 0.5, 0.25, 0]


def test_unseen_classes_are_told_of(
    targets: Path, indexed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held = ["--held-out", str(indexed / "index.csv")]
    assert main([*arguments(targets, tmp_path, 2), *held]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert 0 <= last[f"{indexed.name} 1-shot"] <= 100


def test_mirrored_maps_belong_to_mirrored_frames(targets: Path) -> None:
    batches = Batches(TargetFiles.opened(targets), 0)
    plain, mirrored = (batches.read([Pick(0, 3, 1, flag)], 2) for flag in (False, True))
    assert plain.frames_BTSSC.shape == (1, 2, 32, 32, 3)
    assert torch.equal(mirrored.frames_BTSSC, plain.frames_BTSSC.flip(3))
    for part, side in (("inner_BTPC", 11), ("maps_BTPC", 3)):
        grids = [getattr(one, part).unflatten(2, (side, side)) for one in (plain, mirrored)]
        assert torch.equal(grids[1], grids[0].flip(3))


def test_a_part_of_a_clip_is_asked_for_what_the_teacher_says_of_all_of_it(targets: Path) -> None:
    files = TargetFiles.opened(targets)
    batches = Batches(files, 0)
    part, whole = batches.read([Pick(0, 3, 1, False)], 1), batches.read([Pick(0, 3, 0, False)], 4)
    assert torch.equal(part.hidden_BC, whole.hidden_BC)
    said = files.reading().hidden(whole.maps_BTPC.float().mean((1, 2)))
    torch.testing.assert_close(whole.hidden_BC, said, atol=2e-2, rtol=1e-2)


def test_a_batch_has_its_kinds_alone(targets: Path) -> None:
    files = TargetFiles.opened(targets)
    batches = Batches(files, 0)
    pictures = slice(*files.kinds["pictures"])
    known = torch.cat(
        [torch.from_numpy(files.rows(draw).rows["frames"][pictures].copy()) for draw in (0, 1)]
    )
    drawn = batches.draw(["pictures"], 8, 3, 0).frames_BTSSC
    for view in drawn:
        assert any(torch.equal(view, each) or torch.equal(view.flip(2), each) for each in known)
    assert not torch.equal(drawn[0], drawn[1])


def test_the_space_keeps_angles_and_the_classifier_says_the_same(targets: Path) -> None:
    files = TargetFiles.opened(targets)
    hidden, reading = Batches(files, 0).hidden(100), files.reading()
    space = fit_space(hidden, reading, len(hidden) - 1)  # all that so few clips differ in
    features = space.features(hidden)
    centred = hidden - hidden.mean(0)
    torch.testing.assert_close(features @ features.T, centred @ centred.T, atol=1e-2, rtol=1e-3)
    torch.testing.assert_close(space.logits(features), reading.logits(hidden), atol=1e-2, rtol=1e-3)
    narrow = fit_space(hidden, reading, 2)
    torch.testing.assert_close(narrow.features(hidden), features[:, :2], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("shape", [(6, 20), (20, 6)])
def test_muon_steps_along_nearly_orthogonal_matrices(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonal(matrix))
    assert values.min() > 0.6
    assert values.max() < 1.3


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (["--features", "64"], "features of width 64 need more"),
        (["--size", "40"], "size"),
        (["--steps", "0"], "give such numbers"),
        (["--targets", "/nowhere"], "/nowhere holds no targets"),
    ],
)
def test_wrong_input_is_one_sentence(
    changes: list[str],
    sentence: str,
    targets: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([*arguments(targets, tmp_path), *changes]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert "Traceback" not in error
