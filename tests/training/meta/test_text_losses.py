"""Contrast, text classes and masked words: released values, and what they teach."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from model.config.method import MethodConfig
from model.methods import METHODS
from model.recognizer import Recognizer
from model.text import template_stages
from tests.model.golden_methods import Case, files_of
from tests.model.tiny import LABELS, TOWERS, clips, tiny_recognizer
from tests.training.learners import CLASSES, SHOWN, labelled
from training.data.episodes import EpisodePlan, EpisodeSampler
from training.meta.learner import Learner
from training.meta.losses.contrast import multi_hot, one_way
from training.meta.losses.output import UNMASKED
from training.meta.recipe import FitRecipe
from training.meta.recipes.named import RECIPES
from training.meta.word_masking import WordMasking, texts_of, vocabulary

SAID = LABELS[:CLASSES]
FRAMES = 8


@pytest.fixture(params=files_of("actionclip"), ids=lambda file: file.stem)
def case(request: pytest.FixtureRequest) -> Case:
    file: Path = request.param
    return Case(file)


def test_the_contrast_has_the_released_values(case: Case) -> None:
    meta, logits_BB = case.meta, case.want("logits_video_to_text")
    video_BE = F.normalize(case.want("video_Transf"), dim=-1)
    text_BE = F.normalize(case.inputs["text"][: meta["clips"]], dim=-1)
    torch.testing.assert_close(
        meta["sharpness"] * video_BE @ text_BE.T, logits_BB, atol=1e-4, rtol=1e-5
    )
    labels_B = torch.tensor(meta["labels"])
    case.close(one_way(logits_BB, labels_B), "loss_video")
    case.close(one_way(logits_BB.T, labels_B), "loss_text")
    case.close(multi_hot(logits_BB, labels_B), "loss")


class Trunk:
    """Runs the trunk at every step, with gradients where it learns."""

    def __init__(self, recognizer: Recognizer) -> None:
        look = clips(CLASSES, seed=4).repeat_interleave(SHOWN, dim=0).float()
        self.pictures = ((look + clips(CLASSES * SHOWN, seed=5).float()) / 2).to(torch.uint8)
        self.recognizer = recognizer

    def tokens(self, clips: Sequence[int], draws: Sequence[int] | None = None) -> Tensor:  # noqa: ARG002
        return self.recognizer.trunk(self.pictures[list(clips)])


def method_words(config: MethodConfig) -> tuple[str, ...]:
    """All words that a text tower of this method meets."""
    found = {word.strip(",?") for word in vocabulary(config, SAID)}
    return tuple(sorted(found | {"mask"}))


def learner_of(preset: str, recipe: FitRecipe, **changes: object) -> Learner:
    text = TOWERS.text
    assert text is not None
    text = replace(text, words=method_words(METHODS[preset]), width=TOWERS.width)
    recognizer = tiny_recognizer(
        preset, trained=False, backbone=replace(TOWERS, text=text), **changes
    )
    plan = EpisodePlan((2, 3), (1, 2), 2)
    return Learner(
        recognizer,
        recipe,
        EpisodeSampler(labelled(), plan, recipe.seed),
        Trunk(recognizer),  # type: ignore[arg-type]
        stages={label: template_stages(label, 1) for label in LABELS},
    )


def short(preset: str, weights: Mapping[str, float] | None = None) -> FitRecipe:
    """Return a preset's recipe, for a few steps."""
    own = RECIPES[preset]
    return replace(
        own, episodes=8, per_step=2, draws=0, lr=1e-3, weights={**own.weights, **(weights or {})}
    )


def reached(learner: Learner, steps: int = 1) -> set[str]:
    """Name what got a gradient."""
    found: set[str] = set()
    for _ in range(steps):
        learner.accumulate()
        found |= {
            name for name, p in learner.trained.items() if p.grad is not None and bool(p.grad.any())
        }
        learner.steps_done += 1
    return found


def test_actionclip_teaches_both_towers_its_head_and_the_scale_of_the_contrast() -> None:
    learner = learner_of("actionclip", short("actionclip"))
    got = reached(learner)
    rooms = ("video.tower.model.blocks.0", "text.tower.model.token_embedding", "video.temporal")
    for room in (*rooms, "losses.contrast_learned.log_scale"):
        assert any(name.startswith(room) for name in got), room
    unread = {name for name in learner.trained if name not in got}
    assert all("logit" in name for name in unread), unread
    assert learner.recognizer.config.tune == "towers"


def test_the_head_alone_learns_where_the_towers_are_frozen() -> None:
    learner = learner_of("actionclip", short("actionclip"), tune="frozen")
    got = reached(learner)
    assert got == set(learner.trained)
    assert all(name.startswith(("video.temporal", "losses.")) for name in got)


def test_m2clip_teaches_its_adapters_and_heads_and_no_tower() -> None:
    learner = learner_of("m2clip", short("m2clip", {"masked_words": 0.1}))
    before = {name: tensor.clone() for name, tensor in learner.recognizer.state_dict().items()}
    towers = {name for name in before if ".tower." in name}
    for _ in range(3):  # behind a convolution that starts at zero, nothing is taught at first
        learner.step()
    got = reached(learner, steps=2)
    rooms = ("video.adapted", "video.temporal", "text.adapted", "losses.visual_class.classify")
    words = ("losses.masked_words.before_mlp", "losses.masked_words.decode")
    for room in (*rooms, *words):
        assert any(name.startswith(room) for name in got), room
    assert not [name for name in learner.trained if ".tower." in name or ".block." in name]
    after = learner.recognizer.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in towers)
    assert not any("masked_words" in name or "visual_class" in name for name in after)
    shares = {group["share"] for group in learner.optimizer.param_groups if group["params"]}
    assert shares == {0.5, 1.0}


@pytest.mark.parametrize("preset", ["actionclip", "actionclip_text", "m2clip", "m2clip_temporal"])
def test_training_by_its_own_recipe_lowers_the_loss(preset: str) -> None:
    recipe = replace(short(preset), episodes=60, lr=3e-3, rates={})
    learner = learner_of(preset, recipe)
    losses = [learner.step() for _ in range(recipe.steps)]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


def test_words_are_masked_at_their_tokens_and_one_is_at_least() -> None:
    learner = learner_of("m2clip", short("m2clip"))
    text, config = learner.recognizer.text, learner.recognizer.config
    assert text is not None
    masking, words = WordMasking(text.tower, config, SAID), vocabulary(config, SAID)
    (mask,) = text.tower.read("mask")[1:-1]  # type: ignore[index]
    ids_BL, words_BL = masking.draw(SAID * 20, np.random.default_rng(0))
    masked_B = 0
    for label, ids, hidden in zip(SAID * 20, ids_BL, words_BL, strict=True):
        (said,) = texts_of(config, label)
        places = (hidden != UNMASKED).nonzero().flatten().tolist()
        assert (ids == mask).nonzero().flatten().tolist() == places
        masked_B += len(places) > 0
        for place in places:
            assert words[int(hidden[place])] == said.lower().split()[place - 1]
    assert 0.3 < masked_B / len(ids_BL) < 0.7


def test_no_masked_word_is_no_loss() -> None:
    learner = learner_of("m2clip", short("m2clip", {"masked_words": 1.0}))
    output = learner.passes.output(0)
    assert output.masked is not None
    unmasked = replace(output.masked, words_BL=torch.full_like(output.masked.words_BL, UNMASKED))
    assert learner.losses["masked_words"](replace(output, masked=unmasked)) == 0
    text_BE = output.clip_text_BE()
    assert text_BE is output.masked.features_BE  # the contrast reads the masked text
