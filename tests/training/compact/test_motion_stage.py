"""The motion stage: adapters come to tell motions that the frozen tower's frames do not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model.assembly.recognizer import build_recognizer
from model.backbones.packaged.compact import compact_image_tower, compact_text_tower
from model.checkpoint import save_checkpoint
from model.config.blocks import TaskConfig
from model.config.towers import CompactConfig, CompactTextConfig
from model.methods import compact_method
from model.recognizer import Recognizer
from training.compact.captions import CaptionedClips, features_of, vocabulary
from training.compact.motion_stage import (
    MotionRecipe,
    motion_numbers,
    stage_features,
    train_motions,
)
from training.compact.text_stage import main
from training.features.tokens import looked_at
from training.meta.losses.nearness import distance
from training.synthetic.actions import Action
from training.synthetic.motions import MOTIONS


def recognizer() -> Recognizer:
    torch.manual_seed(0)
    text = CompactTextConfig(words=vocabulary([]), width=32, layers=1, heads=2)
    config = CompactConfig(size=32, width=16, depth=2, heads=1, text=text)
    towers = compact_image_tower(config), compact_text_tower(text, 16)
    return build_recognizer(compact_method(config), *towers)


def clips() -> CaptionedClips:
    """Clips whose tokens lean towards one of two directions, stage by stage."""
    rng = np.random.default_rng(0)
    names = ("rises", "falls")
    actions, tokens = [], []
    for _ in range(24):
        first, second, third = (names[int(rng.integers(2))] for _ in range(3))
        actions.append(Action("red", "wavy", "star", (first, second, third)))
        leans = [names.index(motion) for motion in (first,) * 3 + (second,) * 2 + (third,) * 3]
        clip = torch.from_numpy(rng.normal(size=(8, 5, 16))).float()
        clip[:, 1:, :4] += 2.0 * (2 * torch.tensor(leans) - 1)[:, None, None]
        tokens.append(clip)
    return CaptionedClips(torch.stack(tokens).half(), tuple(actions))


def test_adapters_learn_and_nothing_else_does() -> None:
    model, known = recognizer(), clips()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    plain = features_of(model, known)
    named = train_motions(model, known, MotionRecipe(steps=200, batch=12, lr=1e-2, patches=1.0))
    changed = {n for n, value in model.state_dict().items() if not torch.equal(value, before[n])}
    assert named > 0.85  # a guess is right half of the time
    assert model.trained
    assert all("video.adapted" in name or "temporal_embedding" in name for name in changed)
    assert not torch.allclose(features_of(model, known), plain)


def test_adapters_that_are_held_make_of_other_clips_what_they_made() -> None:
    moved = []
    for keep in (0.0, 30.0):
        model, known = recognizer(), clips()
        rng = torch.Generator().manual_seed(1)
        others = CaptionedClips(torch.randn(20, 8, 5, 16, generator=rng).half(), ("wave",) * 20)
        before = features_of(model, others)
        recipe = MotionRecipe(steps=160, batch=12, lr=1e-2, patches=1.0, keep=keep)
        named = train_motions(model, known, recipe, others=others)
        moved.append(float(distance(features_of(model, others), before)))
        assert named > 0.8
    free, held = moved
    assert held < 0.2 * free


def test_the_same_seed_gives_the_same_weights() -> None:
    made = []
    for _ in range(2):
        model = recognizer()
        train_motions(model, clips(), MotionRecipe(steps=5, batch=4))
        made.append(model.state_dict())
    assert all(torch.equal(made[0][name], value) for name, value in made[1].items())


def test_stages_are_the_windows_that_scores_see() -> None:
    model, known = recognizer(), clips()
    features = features_of(model, known)[:2]
    with torch.no_grad():
        stages = stage_features(model, known.tokens_CTLD[:2].float())
    torch.testing.assert_close(stages[:, 0], features[:, 1:4].mean(dim=1))
    torch.testing.assert_close(stages[:, 1], features[:, 3:6].mean(dim=1))
    torch.testing.assert_close(stages[:, 2], features[:, 5:8].mean(dim=1))


def test_motions_are_numbered_in_their_order_and_labels_have_none() -> None:
    action = Action("red", "wavy", "star", ("collides", "moves left", "rises"))
    names = list(MOTIONS)
    assert motion_numbers([action]).tolist() == [[names.index(m) for m in action.motions]]
    with pytest.raises(ValueError, match="no motions"):
        motion_numbers([action, "wave"])


def test_a_pass_looks_at_the_first_token_and_a_share_of_the_others() -> None:
    rng = np.random.default_rng(0)
    drawn = looked_at(197, 0.5, rng).tolist()
    assert drawn[0] == 0
    assert len(drawn) == 99
    assert drawn == sorted(set(drawn))
    assert drawn != looked_at(197, 0.5, rng).tolist()
    assert looked_at(5, 1.0, rng).tolist() == [0, 1, 2, 3, 4]
    assert looked_at(5, 0.01, rng).tolist()[0] == 0
    assert len(looked_at(5, 0.01, rng)) == 2


@pytest.mark.parametrize(
    ("keep", "blocks", "index", "complaint"),
    [
        ("-1", 2, True, "it should be greater than or equal to 0"),
        ("5", 2, False, "index.csv"),
        ("5", 1, True, "other form"),
    ],
)
def test_holding_what_cannot_be_held_is_refused_before_anything_is_computed(
    keep: str,
    blocks: int,
    index: bool,
    complaint: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    start, frames, out = tmp_path / "start", tmp_path / "frames", tmp_path / "out"
    config = CompactConfig(size=32, width=16, depth=2, heads=1)
    method = replace(compact_method(config), visual=TaskConfig(blocks=blocks))
    save_checkpoint(build_recognizer(method, compact_image_tower(config), None), start, "A start.")
    frames.mkdir()
    if index:
        rows = "path,label,split,source_group\nwave.mp4,wave,train,one\n"
        (frames / "index.csv").write_text(rows)
    asked = ["--start", str(start), "--frames", str(frames), "--keep", keep, "--out", str(out)]
    assert main(asked) == 2
    assert complaint in capsys.readouterr().err
    assert not out.exists()
