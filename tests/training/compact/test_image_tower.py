"""Pretraining for real, on a very small teacher: learns, resumes, and never reads a test class."""

import json
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from model.backbones.packaged.compact import compact_image_tower
from model.checkpoint import load_recognizer
from model.config.towers import CompactConfig
from model.text import template_stages
from tests.forked import ForkedCommand
from tests.training.conftest import TEACHER
from training.compact.distillation import (
    Distiller,
    embed,
    matched_depths,
    measure_scales,
    teacher_states,
)
from training.compact.image_tower import ImageRun, rate
from training.compact.pictures import list_files, read_pools
from training.compact.recipes import ImageRecipe
from training.compact.teacher import open_teacher
from training.errors import InputError
from training.features.augmentation import Augmentation, draw_views
from training.pretrain import main

SMALL = ["--width", "64", "--depth", "3", "--heads", "2", "--side", "96", "--per-clip", "2"]
BRIEF = ["--steps", "12", "--batch", "8", "--views", "16", "--reuse", "2", "--synthetic", "3"]
TAUGHT = [
    "--motion-clips", "8", "--motion-steps", "1", "--text-steps", "1", "--device", "cpu",
    "--precision", "fp32",
]  # fmt: skip


def arguments(teacher: Path, folder: Path, out: Path) -> list[str]:
    source = ["--teacher", TEACHER, "--teacher-weights", str(teacher), "--frames", str(folder)]
    return [*source, "--out", str(out), *SMALL, *BRIEF, *TAUGHT]


def assert_same_weights(one: Path, two: Path) -> None:
    first, second = (load_file(folder / "weights.safetensors") for folder in (one, two))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="session")
def undisturbed(
    teacher_weights: Path, indexed: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A finished run."""
    out = tmp_path_factory.mktemp("undisturbed")
    assert main(arguments(teacher_weights, indexed, out)) == 0
    return out


def test_the_loss_falls(teacher_weights: Path, pictures: Path) -> None:
    teacher, _ = open_teacher(TEACHER, teacher_weights)
    torch.manual_seed(0)
    student = compact_image_tower(CompactConfig(size=160, width=64, depth=3, heads=2))
    recipe = ImageRecipe(steps=48, batch=8, views=32, reuse=12)
    pools = read_pools([pictures], 2, side=96, per_clip=2)
    run = ImageRun(student, teacher, pools, recipe, half=False)
    losses = list(run.run_round())
    assert len(losses) == 48
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])


def test_a_run_stopped_and_killed_ends_with_the_same_weights(
    teacher_weights: Path, indexed: Path, undisturbed: Path, tmp_path: Path
) -> None:
    given = arguments(teacher_weights, indexed, tmp_path / "out")
    assert main([*given, "--max-seconds", "0"]) == 0  # ends after one round
    assert not (tmp_path / "out/weights.safetensors").exists()
    state = tmp_path / "out/image_state.pt"
    before = state.stat().st_mtime_ns
    process = ForkedCommand("training.pretrain", given)
    while process.alive and state.stat().st_mtime_ns == before:
        time.sleep(0.02)
    process.kill()
    assert process.wait(0) == -signal.SIGKILL, "it had ended before it was killed"
    assert main(given) == 0
    assert_same_weights(tmp_path / "out", undisturbed)


def test_the_result_is_a_checkpoint_that_knows_its_words(undisturbed: Path) -> None:
    recognizer = load_recognizer(str(undisturbed))
    assert recognizer.has_text
    assert recognizer.size == 160
    assert recognizer.trained  # by the motion stage
    label = "red striped ball rises then grows then fades"
    assert recognizer.text_fault(label, template_stages(label)) is None
    assert recognizer.text_fault("train action", template_stages("train action")) is None
    fault = recognizer.text_fault("yodel", template_stages("yodel"))
    assert fault is not None
    assert "'yodel'" in fault.sentence
    tensors = recognizer.state_dict()
    assert "video.tower.model.blocks.0.attn.qkv.weight" in tensors
    assert "text.tower.model.token_embedding.weight" in tensors


def test_test_classes_are_never_read(
    teacher_weights: Path, indexed: Path, undisturbed: Path, tmp_path: Path
) -> None:
    folder = tmp_path / indexed.name
    shutil.copytree(indexed, folder)
    for clip in folder.glob("test_*.mp4"):
        clip.unlink()
    assert not [file for file in list_files(indexed) if file.name.startswith("test")]
    assert main(arguments(teacher_weights, folder, tmp_path / "out")) == 0
    assert_same_weights(tmp_path / "out", undisturbed)
    words = json.loads((undisturbed / "method.json").read_text())["backbone"]["text"]["words"]
    assert "test" not in words


def test_bad_input_is_one_sentence_and_exit_code_2(
    teacher_weights: Path,
    indexed: Path,
    undisturbed: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty").mkdir()
    good = arguments(teacher_weights, indexed, tmp_path / "out")
    cases = {
        "holds no picture or video": arguments(teacher_weights, tmp_path / "empty", tmp_path / "1"),
        "is no folder": arguments(teacher_weights, tmp_path / "absent", tmp_path / "2"),
        "another shape": [*good, "--teacher", "timm:vit_tiny_patch16_224"],
        "a teacher is timm:NAME": [*good, "--teacher", "resnet50"],
        "cannot be read": [*good, "--teacher-weights", str(tmp_path / "none.npz")],
        "has other sizes than the student": [*good, "--start", "compact"],
        "a recipe with another 'image'": [
            *arguments(teacher_weights, indexed, undisturbed),
            "--steps",
            "13",
        ],
    }
    for message, given in cases.items():
        assert main(given) == 2, message
        told = capsys.readouterr().err.strip().splitlines()[-1]
        assert told.startswith("pretrain: ")
        assert message in told
    assert not (tmp_path / "out").exists()


def test_damaged_files_are_skipped_below_a_share(pictures: Path, tmp_path: Path) -> None:
    for number in range(30):
        shutil.copy(pictures / "1.png", tmp_path / f"{number}.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    assert read_pools([tmp_path], 0, side=32, per_clip=1).counts == (30,)
    for number in range(3):
        (tmp_path / f"broken{number}.mp4").write_bytes(b"no video")
    with pytest.raises(InputError, match="4 of 34 files"):
        read_pools([tmp_path], 0, side=32, per_clip=1)


def test_a_wide_picture_gives_both_its_ends(pictures: Path) -> None:
    pools = read_pools([pictures], 0, side=48, per_clip=1)
    assert pools.counts == (7,)
    assert pools.pictures_NHWC.shape == (7, 48, 48, 3)


def test_origins_are_drawn_by_the_square_root_of_their_sizes(pictures: Path) -> None:
    pools = read_pools([pictures], 7, side=32, per_clip=1)
    assert pools.counts == (7, 28)
    picks = pools.draw(6000, torch.Generator().manual_seed(0))
    assert (picks < 7).float().mean().item() == pytest.approx(1 / 3, abs=0.03)
    assert set(picks.tolist()) == set(range(35))


def test_views_stay_in_range_and_repeat_with_their_seed() -> None:
    pictures = torch.randint(0, 256, (3, 40, 40, 3), dtype=torch.uint8)
    picks = torch.tensor([0, 1, 2, 2])
    one, two = (
        draw_views(pictures, picks, 32, torch.Generator().manual_seed(1), Augmentation())
        for _ in range(2)
    )
    assert one.shape == (4, 3, 32, 32)
    assert one.dtype == torch.uint8
    assert torch.equal(one, two)
    assert not torch.equal(one[2], one[3])


def test_no_augmentation_gives_the_picture_back() -> None:
    pictures = torch.randint(0, 256, (1, 32, 32, 3), dtype=torch.uint8)
    plain = Augmentation(
        min_area=1.0, max_stretch=1.0, jitter=0.0, grey=0.0, swap=0.0, paste=0.0, mixup=0.0
    )
    picture_CHW = pictures[0].permute(2, 0, 1)
    views = [
        draw_views(pictures, torch.tensor([0]), 32, torch.Generator().manual_seed(seed), plain)[0]
        for seed in range(8)
    ]
    same = [torch.equal(view, picture_CHW) for view in views]
    mirrored = [torch.equal(view, picture_CHW.flip(2)) for view in views]
    assert any(same)
    assert any(mirrored)
    assert all(a or b for a, b in zip(same, mirrored, strict=True))


def test_all_patches_kept_equal_the_models_own_pass(teacher_weights: Path) -> None:
    teacher, _ = open_teacher(TEACHER, teacher_weights)
    pixels = torch.randn(2, 3, 160, 160)
    every = torch.arange(100).expand(2, -1)
    with torch.no_grad():
        own = teacher.model.forward_features(pixels)
        for keep in (None, every):
            states = teacher_states(teacher.model, pixels, keep, matched_depths(3, 6))
            torch.testing.assert_close(states[-1], own)
            assert len(states) == 5
        part = embed(teacher.model, pixels, every[:, 10:12])
        torch.testing.assert_close(part[:, 1:], embed(teacher.model, pixels, None)[:, 11:13])


def test_depths_are_spread_over_the_teacher() -> None:
    assert matched_depths(6, 12) == (0, 2, 4, 6, 8, 10, 12)
    assert matched_depths(4, 4) == (0, 1, 2, 3, 4)


def test_the_rate_warms_up_and_falls_to_zero() -> None:
    assert rate(0.0, 0.1) < 0.02
    assert rate(0.1, 0.1) == pytest.approx(1.0)
    assert rate(1.0, 0.1) == pytest.approx(0.0)


def test_a_run_can_start_from_an_earlier_checkpoint(
    teacher_weights: Path, indexed: Path, undisturbed: Path, tmp_path: Path
) -> None:
    given = arguments(teacher_weights, indexed, tmp_path / "out")
    assert main([*given, "--start", str(undisturbed), "--steps", "1", "--lr", "0"]) == 0
    first, second = (load_recognizer(str(f)).video.tower for f in (undisturbed, tmp_path / "out"))
    name = "blocks.1.mlp.fc1.weight"
    torch.testing.assert_close(first.model.state_dict()[name], second.model.state_dict()[name])


def test_a_pasted_rectangle_comes_from_another_view_at_the_same_place() -> None:
    pictures = torch.arange(4, dtype=torch.uint8)[:, None, None, None].expand(-1, 16, 16, 3) * 60
    only_paste = Augmentation(jitter=0.0, grey=0.0, swap=0.0, paste=1.0, mixup=0.0)
    generator = torch.Generator().manual_seed(0)
    views = draw_views(pictures.contiguous(), torch.arange(4), 32, generator, only_paste)
    found = [set(view.unique().tolist()) for view in views]
    assert all(number * 60 in values for number, values in enumerate(found))
    assert max(len(values) for values in found) == 2


def test_inner_depths_can_be_left_out_of_the_loss(teacher_weights: Path) -> None:
    teacher, _ = open_teacher(TEACHER, teacher_weights)
    pixels = torch.randn(2, 3, 160, 160)
    states = teacher_states(teacher.model, pixels, None, matched_depths(3, 6))
    torch.manual_seed(0)
    student = compact_image_tower(CompactConfig(size=160, width=64, depth=3, heads=2))
    distiller = Distiller(student.model, measure_scales(states))
    damaged = [torch.zeros_like(state) for state in states[:-1]] + states[-1:]
    with torch.no_grad():
        assert distiller(pixels, None, states, 0.0) == distiller(pixels, None, damaged, 0.0)
        assert distiller(pixels, None, states, 1.0) != distiller(pixels, None, damaged, 1.0)
