"""The text stage: a vocabulary that covers what it says, and a contrast that can be learned."""

import torch

from model.backbone import compact_image_tower, compact_text_tower
from model.build import build_recognizer
from model.config import CompactConfig, CompactTextConfig, MethodConfig
from model.recognizer import Recognizer
from model.subactions import prompts, template_stages
from model.words import split_words
from training.captions import (
    CaptionedClips,
    action_texts,
    label_texts,
    partial_texts,
    vocabulary,
)
from training.synthetic import Action, demo_actions
from training.text_tower import TextRecipe, draw_text, text_loss, train_text_tower


def recognizer() -> Recognizer:
    torch.manual_seed(0)
    text = CompactTextConfig(words=vocabulary(["wave"]), width=32, layers=1, heads=2)
    config = CompactConfig(size=32, width=16, depth=1, heads=1, text=text)
    towers = compact_image_tower(config), compact_text_tower(text, 16)
    return build_recognizer(MethodConfig(backbone=config), *towers)


def clips() -> CaptionedClips:
    """Clips of four labels whose frame features point four ways."""
    texts = [action_texts(action) for action in demo_actions(3, 0)] + [label_texts("wave")]
    features = torch.nn.functional.one_hot(torch.arange(4), 16).float()
    partial = [partial_texts(action) for action in demo_actions(3, 0)] + [()]
    return CaptionedClips(features[:, None].expand(-1, 8, -1), tuple(texts), tuple(partial))


def test_the_vocabulary_covers_captions_templates_and_labels() -> None:
    words = vocabulary(["brush_hair"])
    assert words == tuple(sorted(set(words)))
    for action in demo_actions(8, 0):
        for stages in action_texts(action):
            assert not {word for text in stages for word in split_words(text)} - set(words)
    stages = prompts("brush_hair", template_stages("brush_hair"))
    assert not {word for text in stages for word in split_words(text)} - set(words)
    assert "kick" not in words


def test_the_longest_caption_fits_the_context() -> None:
    longest = "red striped triangle moves left then moves right then collides"
    stages = prompts(longest, template_stages(longest))
    assert max(len(split_words(text)) for text in stages) + 2 <= CompactTextConfig(words=()).context


def test_the_contrast_is_learned_and_ranks_the_own_text_first() -> None:
    model, known = recognizer(), clips()
    recipe = TextRecipe(steps=150, batch=16, lr=5e-3)
    chosen = [stages[0] for stages in known.texts]
    with torch.no_grad():
        before = text_loss(model, known.features_CTE, chosen, known.texts, recipe)
    train_text_tower(model, known, recipe)
    with torch.no_grad():
        after = text_loss(model, known.features_CTE, chosen, known.texts, recipe)
        text = model.encode_text(["wave"], [template_stages("wave")])
        features = known.features_CTE
        scores = model.score_features(features, torch.arange(4), features, text.expand(4, -1, -1))
    assert after < 0.5 * before
    assert scores.text_QN is not None
    assert scores.text_QN[:, 0].argmax() == 3
    assert not any(parameter.requires_grad for parameter in model.text.tower.model.parameters())


def test_a_text_that_is_true_of_two_clips_makes_neither_the_others_negative() -> None:
    model, known = recognizer(), clips()
    recipe = TextRecipe(level_weight=0.0)
    features = known.features_CTE[[0, 3, 1]]
    ball, wavy, star = (known.texts[0][0], known.texts[0][1], known.texts[1][0])
    true = [(ball, wavy), (ball, wavy), (star,)]
    with torch.no_grad():
        one = text_loss(model, features, [ball, wavy, star], true, recipe)
        swapped = text_loss(model, features, [wavy, ball, star], true, recipe)
        apart = text_loss(model, features, [ball, wavy, star], [(ball,), (wavy,), (star,)], recipe)
    torch.testing.assert_close(one, swapped)
    assert not torch.isclose(one, apart)


def test_parts_of_an_action_are_named_too_but_not_the_whole() -> None:
    action = Action("blue", "wavy", "arrow", ("bounces", "rises", "fades"))
    labels = {
        texts[0].removeprefix("A video of action about ").split(":")[0]
        for texts in partial_texts(action)
    }
    assert {"arrow", "blue arrow", "wavy arrow bounces then rises then fades"} <= labels
    assert {"bounces then rises then fades", "blue wavy arrow"} <= labels
    assert action.label not in labels
    assert len(labels) == 14


def test_a_part_is_drawn_about_as_often_as_the_whole() -> None:
    known = clips()
    generator = torch.Generator().manual_seed(0)
    drawn = [draw_text(known, 0, 0.5, generator) for _ in range(400)]
    assert 150 < sum(text in known.texts[0] for text in drawn) < 250
    assert {draw_text(known, 3, 0.5, generator) for _ in range(20)} == set(known.texts[3])
