"""Augmentation draws of clips: the same change for all frames, at jittered times."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.videos import make_video
from training.data.datasets import LabelledClip
from training.features.augmentation import Augmentation, recolour
from training.features.clip_views import (
    MARGIN,
    ClipAugmentation,
    draw_clip_view,
    plain_crop,
    query_draws,
    read_view,
)


def test_all_frames_of_a_draw_are_changed_alike() -> None:
    frame_HWC = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (37, 37, 3), np.uint8))
    frames_THWC = frame_HWC.expand(6, -1, -1, -1)
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        view_TCSS = draw_clip_view(frames_THWC, 32, generator, ClipAugmentation())
        assert view_TCSS.shape == (6, 3, 32, 32)
        assert torch.equal(view_TCSS, view_TCSS[:1].expand_as(view_TCSS))


def test_frames_keep_their_difference_in_brightness() -> None:
    frames_THWC = torch.arange(40, 200, 40).view(4, 1, 1, 1).expand(4, 20, 20, 3).to(torch.uint8)
    generator = torch.Generator().manual_seed(0)
    view_TCSS = draw_clip_view(frames_THWC, 16, generator, ClipAugmentation())
    level_T = view_TCSS.float().mean(dim=(1, 2, 3))
    assert (level_T.diff() > 10).all()


@pytest.mark.parametrize(("chance", "sides"), [(0.0, {"left"}), (1.0, {"right"})])
def test_mirroring_can_be_switched_off(chance: float, sides: set[str]) -> None:
    frames_THWC = torch.zeros(2, 16, 16, 3, dtype=torch.uint8)
    frames_THWC[:, :, :8] = 255  # bright on the left
    found = set()
    for seed in range(12):
        view_TCSS = draw_clip_view(
            frames_THWC,
            16,
            torch.Generator().manual_seed(seed),
            ClipAugmentation(mirror=chance, min_area=0.9, max_stretch=1.0),
        ).float()
        bright_left = view_TCSS[..., :8].mean() > view_TCSS[..., 8:].mean()
        found.add("left" if bright_left else "right")
    assert found == sides


def test_frame_times_are_jittered_inside_their_spans(tmp_path: Path) -> None:
    levels = [np.full((16, 16, 3), 20 + 5 * k, np.uint8) for k in range(40)]
    (tmp_path / "ramp.mp4").write_bytes(make_video(levels))
    clip = LabelledClip(tmp_path / "ramp.mp4", "ramp", "ramp")
    plain = ClipAugmentation(jitter=0.0, grey=0.0)
    seen = set()
    for draw in range(1, 5):
        view = read_view(clip, frames=8, size=16, draw=draw, seed=0, augmentation=plain)
        frame_T = (view.mean(axis=(1, 2, 3)) - 20) / 5
        spans = np.round(frame_T) // 5
        assert np.abs(spans - np.arange(8)).max() <= 1  # the codec may be off by a level
        seen.add(tuple(np.round(frame_T)))
    assert len(seen) == 4


@pytest.mark.parametrize("draw", [0, 1])
def test_views_of_squashed_frames_span_them(draw: int, tmp_path: Path) -> None:
    row = np.linspace(0, 255, 192).astype(np.uint8)
    ramp = np.broadcast_to(row[None, :, None], (64, 192, 3)).copy()
    (tmp_path / "ramp.mp4").write_bytes(make_video([ramp] * 8))
    clip = LabelledClip(tmp_path / "ramp.mp4", "ramp", "ramp")
    given = {"frames": 4, "size": 56, "draw": draw, "seed": 0, "augmentation": plain_crop(0.0)}
    spans = []
    for squash in (None, 64):
        view = read_view(clip, **given, squash=squash)  # type: ignore[arg-type]
        assert view.shape == (4, 56, 56, 3)
        spans.append(np.ptp(view[..., 0].mean(axis=(0, 1))))
    assert spans[0] < 100 < 200 < spans[1]


def test_a_plain_crop_moves_and_changes_neither_scale_nor_colour() -> None:
    size = 56
    side = round(size * MARGIN)
    ramp_HW = torch.arange(side)[:, None] + 2 * torch.arange(side)[None, :]
    frames_THWC = ramp_HW.to(torch.uint8)[None, :, :, None].expand(2, -1, -1, 3)
    corners = set()
    for seed in range(6):
        generator = torch.Generator().manual_seed(seed)
        view_TCSS = draw_clip_view(frames_THWC, size, generator, plain_crop(0.0)).float()
        corners.add(int(view_TCSS[0, 0, 0, 0]))
        assert torch.equal(view_TCSS[0], view_TCSS[1])  # one place for all frames
        assert torch.equal(view_TCSS[:, 0], view_TCSS[:, 2])
        down, across = (view_TCSS[0, 0, 1:-1, 1:-1].diff(dim=axis).mean() for axis in (0, 1))
        assert down.item() == pytest.approx(1.0, abs=0.02)
        assert across.item() == pytest.approx(2.0, abs=0.02)
    assert len(corners) > 2


def test_crops_of_each_frame_lie_in_places_of_their_own_and_are_mirrored_alike() -> None:
    size = 56
    side = round(size * MARGIN)
    across = (2 * torch.arange(side)).to(torch.uint8)  # brighter to the right
    frames_THWC = across[None, None, :, None].expand(6, side, -1, 3)
    rising = set()
    for seed in range(6):
        generator = torch.Generator().manual_seed(seed)
        crop = plain_crop(0.5, each_frame=True)
        view_TCSS = draw_clip_view(frames_THWC, size, generator, crop).float()
        assert len(view_TCSS[:, 0, 0, 0].unique()) > 2
        slopes_T = view_TCSS[:, 0, 0, 1:-1].diff(dim=-1).mean(dim=-1)
        assert slopes_T.abs().numpy() == pytest.approx(2.0, abs=0.02)
        assert len(slopes_T.sign().unique()) == 1
        rising.add(bool(slopes_T[0] > 0))
    assert rising == {False, True}


def test_draws_of_supports_are_plain_crops_and_those_of_queries_change_colours(
    tmp_path: Path,
) -> None:
    red = np.full((64, 64, 3), (180, 60, 60), np.uint8)
    (tmp_path / "red.mp4").write_bytes(make_video([red] * 8))
    clip = LabelledClip(tmp_path / "red.mp4", "red", "red")
    given = {"frames": 4, "size": 56, "seed": 0, "augmentation": query_draws(0.5, of_supports=3)}
    colours = [
        read_view(clip, **given, draw=draw).mean(axis=(0, 1, 2))  # type: ignore[arg-type]
        for draw in range(7)
    ]
    for of_support in colours[1:4]:
        assert of_support == pytest.approx(colours[0], abs=2)
    for of_query in colours[4:]:
        assert np.abs(of_query - colours[0]).max() > 10


def test_turns_of_colours_change_the_hue_and_neither_brightness_nor_saturation() -> None:
    red_BCHW = torch.tensor([1.0, 0.2, 0.2]).view(1, 3, 1, 1).expand(24, 3, 4, 4)
    turning = Augmentation(jitter=0.0, grey=0.0, hue=0.5)
    turned_BC = recolour(red_BCHW, torch.Generator().manual_seed(0), turning)[:, :, 0, 0]
    assert turned_BC.amax(dim=1).numpy() == pytest.approx(1.0, abs=1e-5)
    assert turned_BC.amin(dim=1).numpy() == pytest.approx(0.2, abs=1e-5)
    assert set(turned_BC.argmax(dim=1).tolist()) == {0, 1, 2}
    small = Augmentation(jitter=0.0, grey=0.0, hue=0.1)
    near_BC = recolour(red_BCHW, torch.Generator().manual_seed(0), small)[:, :, 0, 0]
    assert set(near_BC.argmax(dim=1).tolist()) == {0}
