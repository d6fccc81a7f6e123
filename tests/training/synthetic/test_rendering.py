"""Synthetic actions: deterministic, visible, split so that held-out labels exist."""

from pathlib import Path

import numpy as np
import pytest

from model.media.container import UNLIMITED
from model.media.video import read_clip
from training.synthetic.actions import Action, demo_actions, draw_action, split_of, trios
from training.synthetic.motions import MOTIONS, follow
from training.synthetic.rendering import render_clip, write_clip
from training.synthetic.shapes import COLOURS, SHAPES, TEXTURES

RISING = Action("red", "striped", "ball", ("rises", "grows", "fades"))


def redness(frame: np.ndarray) -> np.ndarray:
    """Return where a frame is strongly red."""
    values = frame.astype(int)
    return (values[..., 0] > 150) & (values[..., 1:].max(axis=-1) < 90)


def test_the_same_seed_gives_the_same_clip_and_another_seed_another() -> None:
    first, again, other = (
        render_clip(RISING, np.random.default_rng(seed), 8, 64) for seed in (1, 1, 2)
    )
    assert first.shape == (8, 64, 64, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("texture", TEXTURES)
def test_every_shape_and_texture_shows_its_colour(shape: str, texture: str) -> None:
    action = Action("red", texture, shape, ("moves left", "rises", "spins"))
    clip = render_clip(action, np.random.default_rng(3), 4, 96)
    shares = [redness(frame).mean() for frame in clip]
    assert min(shares) > 0.005
    assert max(shares) < 0.4


def test_a_rising_ball_goes_up_and_a_growing_one_gets_larger() -> None:
    for seed in range(5):
        clip = render_clip(RISING, np.random.default_rng(seed), 9, 96)
        rows = [np.nonzero(redness(frame))[0].mean() for frame in clip[:3]]
        assert rows[0] > rows[1] > rows[2]
        areas = [redness(frame).sum() for frame in clip[3:6]]
        assert areas[0] < areas[1] < areas[2]


@pytest.mark.parametrize("name", MOTIONS)
def test_every_motion_changes_the_pose_within_its_stage(name: str) -> None:
    poses = {follow((name, "falls", "falls"), at) for at in (0.01, 0.1, 0.2)}
    assert len(poses) == 3


def test_order_of_motions_changes_the_path_but_not_its_end() -> None:
    one, two = (
        follow(order, 1.0) for order in (("rises", "grows", "spins"), ("spins", "rises", "grows"))
    )
    assert (one.y, one.growth, one.turns) == pytest.approx((two.y, two.growth, two.turns), abs=1e-5)
    early = follow(("rises", "grows", "spins"), 0.3), follow(("grows", "rises", "spins"), 0.3)
    assert early[0] != early[1]


def test_splits_hold_no_trio_twice_whatever_its_order() -> None:
    members = [set(map(frozenset, trios(split))) for split in ("train", "val", "test")]
    assert not members[0] & members[1]
    assert not members[0] & members[2]
    assert not members[1] & members[2]
    assert all(len(trios_of) >= 20 for trios_of in members)
    assert split_of(("rises", "grows", "falls")) == split_of(("falls", "rises", "grows"))


def test_drawn_actions_belong_to_their_split() -> None:
    rng = np.random.default_rng(0)
    assert {draw_action(rng, "val").split for _ in range(20)} == {"val"}


def test_demo_actions_differ_in_what_moves_and_how() -> None:
    actions = demo_actions(5, seed=3)
    assert actions == demo_actions(5, seed=3)
    assert len({action.colour for action in actions}) == 5
    assert len({action.shape for action in actions}) == 5
    assert len({frozenset(action.motions) for action in actions}) == 5
    assert {action.split for action in actions} == {"test"}
    with pytest.raises(ValueError, match="count is 99"):
        demo_actions(99, seed=0)


def test_captions_name_what_moves_and_how() -> None:
    assert RISING.label == "red striped ball rises then grows then fades"
    assert RISING.stages[1] == "The red striped ball grows."
    assert len(COLOURS) >= 8


def test_a_written_clip_is_a_real_video_of_the_action(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", RISING, 5, fps=12, seconds=2.0, size=96)
    write_clip(tmp_path / "b.mp4", RISING, 5, fps=12, seconds=2.0, size=96)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    clip = read_clip(tmp_path / "a.mp4", frames=8, size=96, limits=UNLIMITED)
    assert clip.codec == "h264"
    assert clip.distinct == 8
    assert abs(clip.duration_s - 2.0) < 0.1
    rendered = render_clip(RISING, np.random.default_rng(5), 24, 96)
    difference = np.abs(clip.frames_THWC[0].astype(int) - rendered[1]).mean()
    assert difference < 12
