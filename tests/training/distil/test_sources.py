"""What a student learns from: the teacher's cells, clips, and pictures that a camera moves over."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from model.errors import BackboneError
from tests.training.conftest import SHARED
from training.distil.pseudo_clips import Camera, camera_path, move_camera
from training.distil.sources import PICTURE_CHANGES, RealClip, clips_of
from training.distil.teacher import open_video_teacher
from training.features.augmentation import Augmentation

SIZE = 96  # pixels
PLAIN = Augmentation(min_area=0.5, max_stretch=1.0, mirror=0, jitter=0, grey=0, mixup=0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_teacher_is_causal_and_reads_its_own_maps(video_teacher: Path) -> None:
    teacher = open_video_teacher(video_teacher)
    clip = torch.rand(1, 4, 3, SIZE, SIZE, generator=seeded())
    changed = clip.clone()
    changed[:, 3] = 0
    before, after = teacher(clip), teacher(changed)
    assert [tuple(states.shape[2:]) for states in before[::15]] == [(48, 48), (3, 3)]
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(other[:3], one[:3])
    assert not torch.allclose(after[-1][3], before[-1][3])


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
        features, hidden, _ = MoViNetA0Stream(weights)(clip)
    teacher = open_video_teacher(weights)
    mean = teacher(clip)[-1].mean((0, 2, 3))[None]
    torch.testing.assert_close(mean, features, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(teacher.hidden(mean), hidden, atol=1e-3, rtol=1e-3)


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


def test_a_clip_is_plain_in_draw_0(indexed: Path) -> None:
    clip = clips_of([indexed / "index.csv"], [])[0]
    assert isinstance(clip, RealClip)
    again = [clip.view(2, 48, draw, 0) for draw in (0, 0, 1)]
    assert (again[0] == again[1]).all()
    assert (again[0] != again[2]).any()
