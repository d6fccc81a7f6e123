"""The text stage: a vocabulary that covers what it says, and a contrast that can be learned."""

from dataclasses import replace

import numpy as np
import torch

from model.assembly.recognizer import build_recognizer
from model.backbones.packaged.compact import compact_image_tower, compact_text_tower
from model.backbones.words import split_words
from model.config.method import MethodConfig
from model.config.towers import CompactConfig, CompactTextConfig
from model.recognizer import Recognizer
from model.text import prompts, template_stages
from training.compact.captions import (
    Caption,
    Subject,
    partial_captions,
    rival_captions,
    vocabulary,
    whole_captions,
)
from training.compact.recipes import TextRecipe
from training.compact.text_tower import said_of, text_loss, train_text_tower
from training.synthetic.actions import Action, demo_actions

ARROW = Action("blue", "wavy", "arrow", ("bounces", "rises", "fades"))


def recognizer() -> Recognizer:
    torch.manual_seed(0)
    text = CompactTextConfig(words=vocabulary(["wave"]), width=32, layers=1, heads=2)
    config = CompactConfig(size=32, width=16, depth=1, heads=1, text=text)
    towers = compact_image_tower(config), compact_text_tower(text, 16)
    return build_recognizer(MethodConfig(backbone=config), *towers)


def clips() -> tuple[torch.Tensor, tuple[Subject, ...]]:
    """Frame features of four clips that point four ways, and what the clips show."""
    features = torch.nn.functional.one_hot(torch.arange(4), 16).float()
    return features[:, None].expand(-1, 8, -1), (*demo_actions(3, 0), "wave")


def test_the_vocabulary_covers_captions_templates_and_labels() -> None:
    words = vocabulary(["brush_hair"])
    assert words == tuple(sorted(set(words)))
    for action in demo_actions(8, 0):
        for caption in whole_captions(action):
            assert not {word for text in caption.texts for word in split_words(text)} - set(words)
    stages = prompts("brush_hair", template_stages("brush_hair"))
    assert not {word for text in stages for word in split_words(text)} - set(words)
    assert "kick" not in words


def test_the_longest_caption_fits_the_context() -> None:
    longest = "red striped triangle moves left then moves right then collides"
    stages = prompts(longest, template_stages(longest))
    assert max(len(split_words(text)) for text in stages) + 2 <= CompactTextConfig(words=()).context


def test_the_contrast_is_learned_and_ranks_the_own_text_first() -> None:
    model, (features, subjects) = recognizer(), clips()
    recipe = TextRecipe(steps=80, batch=16, lr=5e-3)
    chosen = [whole_captions(subject)[0] for subject in subjects]
    with torch.no_grad():
        before = text_loss(model, features, subjects, chosen, recipe)
    train_text_tower(model, features, subjects, recipe)
    with torch.no_grad():
        after = text_loss(model, features, subjects, chosen, recipe)
        text = model.encode_text(["wave"], [template_stages("wave")])
        scores = model.score_features(features, torch.arange(4), features, text.expand(4, -1, -1))
    assert after < 0.5 * before
    assert scores.text_QN is not None
    assert scores.text_QN[:, 0].argmax() == 3
    assert not any(parameter.requires_grad for parameter in model.text.tower.model.parameters())


def test_a_caption_that_is_true_of_two_clips_makes_neither_the_others_negative() -> None:
    model, recipe = recognizer(), TextRecipe(level_weight=0.0)
    features = clips()[0][:2]
    twins = (ARROW, replace(ARROW, texture="dotted"))
    arrow = Caption(("arrow",) * 3, frozenset({"arrow"}))
    wavy = Caption(("wavy",) * 3, frozenset({"wavy"}))
    with torch.no_grad():
        loss = text_loss(model, features, twins, [arrow], recipe)
        both = text_loss(model, features, twins, [arrow, wavy], recipe)
        of_text = text_loss(model, features.flip(0), twins, [arrow], recipe)
    torch.testing.assert_close(loss, of_text)  # either clip is a right answer to `arrow`
    assert both > loss  # `wavy` is true of one clip alone, so it can be wrong


def test_a_caption_holds_stage_by_stage() -> None:
    order = replace(ARROW, motions=("rises", "bounces", "fades"))
    own, rival = whole_captions(ARROW)[0], whole_captions(order)[0]
    assert own.holds(ARROW) == (True, True, True)
    assert rival.holds(ARROW) == (False, False, True)
    assert own.holds(replace(ARROW, colour="red")) == (False, False, False)
    assert Caption(own.texts, frozenset(), ARROW.motions).holds("wave") == (False, False, False)
    assert whole_captions("wave")[0].holds("wave") == (True, True, True)
    assert whole_captions("wave")[0].holds("jump") == (False, False, False)
    assert whole_captions("wave")[0].holds(ARROW) == (False, False, False)


def test_parts_of_an_action_are_named_too_but_not_the_whole() -> None:
    parts = {
        caption.texts[0].removeprefix("A video of action about ").split(":")[0]: caption
        for caption in partial_captions(ARROW)
    }
    assert {"arrow", "blue arrow", "wavy arrow bounces then rises then fades"} <= set(parts)
    assert {"bounces then rises then fades", "blue wavy arrow"} <= set(parts)
    assert ARROW.label not in parts
    assert len(parts) == 14
    assert all(caption.holds(ARROW) == (True, True, True) for caption in parts.values())
    assert parts["arrow"].motions is None
    assert parts["bounces then rises then fades"].words == frozenset()


def test_rivals_share_the_mover_and_every_second_one_the_motions() -> None:
    rivals = rival_captions(ARROW, np.random.default_rng(0), 40)
    assert all(rival.words == {"blue", "wavy", "arrow"} for rival in rivals)
    orders = [rival for rival in rivals if set(rival.motions or ()) == set(ARROW.motions)]
    assert len(rivals) == 80
    assert 40 <= len(orders) < 50
    assert any(not all(rival.holds(ARROW)) for rival in orders)


def test_a_part_is_drawn_about_as_often_as_the_recipe_says() -> None:
    rng, recipe = np.random.default_rng(0), TextRecipe(whole=0.5, rivals=1)
    drawn = [said_of(ARROW, recipe, rng) for _ in range(400)]
    assert 150 < sum(captions[0] in whole_captions(ARROW) for captions in drawn) < 250
    assert {len(captions) for captions in drawn} == {3}
    assert said_of("wave", recipe, rng) == list(whole_captions("wave"))
