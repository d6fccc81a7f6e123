"""Targets: what the teacher says, of which sources, on disk whole or not there."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from model.errors import BackboneError
from tests.training.conftest import SHARED
from tests.training.distil.conftest import LEFT_OUT, targets_of
from training.distil.pseudo_clips import Camera, camera_path, move_camera
from training.distil.sources import PICTURE_CHANGES, RealClip, clips_of
from training.distil.target_files import TargetFiles
from training.distil.targets import main
from training.distil.teacher import SIZE, open_video_teacher
from training.features.augmentation import Augmentation

PLAIN = Augmentation(min_area=0.5, max_stretch=1.0, mirror=0, jitter=0, grey=0, mixup=0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_teacher_is_causal_and_reads_its_own_maps(video_teacher: Path) -> None:
    teacher = open_video_teacher(video_teacher)
    clip = torch.rand(1, 4, 3, SIZE, SIZE, generator=seeded())
    changed = clip.clone()
    changed[:, 3] = 0
    before, after = teacher(clip), teacher(changed)
    assert before.inner_BTPC.shape == (1, 4, 121, 56)
    assert before.maps_BTPC.shape == (1, 4, 9, 480)
    torch.testing.assert_close(after.maps_BTPC[:, :3], before.maps_BTPC[:, :3])
    assert not torch.allclose(after.maps_BTPC[:, 3], before.maps_BTPC[:, 3])
    reading = teacher.reading()
    hidden = reading.hidden(before.maps_BTPC.mean((1, 2)))
    torch.testing.assert_close(hidden, before.hidden_BC, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(reading.logits(hidden), before.logits_BC, atol=1e-3, rtol=1e-3)


def test_the_teacher_computes_what_the_given_tool_computes() -> None:
    weights, tools = SHARED / "weights/movinet_a0_stream_k600.npz", SHARED / "tools"
    if not weights.is_file():
        pytest.skip(f"no {weights.name}: set KSHOT_SHARED to compare with the given tool")
    sys.path.insert(0, str(tools))
    try:
        from movinet_a0_stream import MoViNetA0Stream  # type: ignore[import-not-found]
    finally:
        sys.path.remove(str(tools))
    clip = torch.rand(1, 4, 3, SIZE, SIZE, generator=seeded())
    with torch.inference_mode():
        features, hidden, logits = MoViNetA0Stream(weights)(clip)
    said = open_video_teacher(weights)(clip)
    torch.testing.assert_close(said.maps_BTPC.mean((1, 2)), features, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(said.hidden_BC, hidden, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(said.logits_BC, logits, atol=1e-2, rtol=1e-3)


def test_another_network_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "other.npz"
    np.savez(file, weight=np.zeros(3))
    with pytest.raises(BackboneError, match=r"is no MoViNet-A0-Stream of 600 classes"):
        open_video_teacher(file)


def test_the_camera_stays_inside_the_picture_and_moves_smoothly() -> None:
    for seed in range(40):
        path = camera_path(8, seeded(seed), Camera(still=0, shake=0), PICTURE_CHANGES, (60, 96))
        reach = path[:, [0, 1], [0, 1]].abs() + path[:, :2, 2].abs()
        assert (reach <= 1 + 1e-5).all()
        assert (path[1:] - path[:-1]).abs().max() < 0.3
    assert (path[0] != path[-1]).any()


def test_a_camera_at_rest_shows_one_picture_in_every_frame() -> None:
    picture = np.random.default_rng(0).integers(0, 255, (60, 96, 3), dtype=np.uint8)
    view = move_camera(picture, 4, 32, seeded(), Camera(still=1), PLAIN)
    assert view.shape == (4, 3, 32, 32)
    assert (view == view[:1]).all()
    moved = move_camera(picture, 4, 32, seeded(), Camera(still=0), PLAIN)
    assert (moved != moved[:1]).any()


def test_pixels_stay_square() -> None:
    path = camera_path(1, seeded(), Camera(), PLAIN, (60, 96))[0]
    assert float(path[0, 0] * 96) == pytest.approx(float(path[1, 1] * 60), rel=1e-5)


def test_nothing_related_to_what_is_left_out_is_a_source(tmp_path: Path) -> None:
    rows = ["path,label,split,source_group"]
    rows += ["a.mp4,run,test,film 1", "b.mp4,walk,train,film 1", "c.mp4,walk,train,film 2"]
    rows += ["d.mp4,golf,val,film 3", "e.mp4,wave,train,film 3", "f.mp4,wave,val,film 4"]
    (tmp_path / "index.csv").write_text("\n".join(rows) + "\n")
    found = clips_of([tmp_path / "index.csv"], ["golf"])
    assert [one.clip.name for one in found] == ["c.mp4", "f.mp4"]


def test_a_killed_run_ends_with_the_same_targets(
    video_teacher: Path, indexed: Path, pictures: Path, targets: Path, tmp_path: Path
) -> None:
    half = tmp_path / "half"
    assert main(targets_of(video_teacher, indexed, pictures, half)) == 0
    files = TargetFiles.opened(half)
    assert files.draws() == [0, 1]
    done = half / "draw_001.npy"  # as a kill before the last rows leaves it
    content = bytearray(done.read_bytes())
    row = files.type.itemsize
    content[-5 * row :] = bytes(5 * row)
    done.unlink()
    (half / "draw_001.part").write_bytes(content)
    marks = bytes([1] * (len(files.names) - 5) + [0] * 5)
    (half / "draw_001.marks").write_bytes(marks)
    assert len(files.rows(1).done) == len(files.names) - 5
    assert main(targets_of(video_teacher, indexed, pictures, half)) == 0
    for draw in (0, 1):
        assert (half / f"draw_00{draw}.npy").read_bytes() == (
            targets / f"draw_00{draw}.npy"
        ).read_bytes()


def test_rows_hold_views_that_differ_by_draw(targets: Path) -> None:
    files = TargetFiles.opened(targets)
    assert files.counts == {"clips": 4, "pictures": 6, "synthetic": 4}
    assert files.kinds["synthetic"] == (10, 14)
    assert not [name for name in files.names if any(label in name for label in LEFT_OUT)]
    first, second = (files.rows(draw).rows for draw in (0, 1))
    assert first["frames"].shape == (14, 3, 32, 32, 3)
    assert all(
        (one != two).any() for one, two in zip(first["frames"], second["frames"], strict=True)
    )
    assert np.isfinite(first["logits"]).all()


def test_a_clip_is_plain_in_draw_0(indexed: Path) -> None:
    clip = clips_of([indexed / "index.csv"], [])[0]
    assert isinstance(clip, RealClip)
    again = [clip.view(2, 48, draw, 0) for draw in (0, 0, 1)]
    assert (again[0] == again[1]).all()
    assert (again[0] != again[2]).any()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (["--leave-out", "flying"], "No list has the label 'flying'"),
        (["--draws", "0"], "--draws is 0; give 1 or more"),
        (["--seed", "1"], "belongs to a recipe with another 'seed'"),
    ],
)
def test_wrong_input_is_one_sentence(
    changes: list[str],
    sentence: str,
    video_teacher: Path,
    indexed: Path,
    pictures: Path,
    targets: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([*targets_of(video_teacher, indexed, pictures, targets), *changes]) == 2
    assert sentence in capsys.readouterr().err
