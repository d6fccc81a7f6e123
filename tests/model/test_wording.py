"""What text towers read of labels: every word of them, in stages that differ, or why not."""

from functools import cache
from pathlib import Path

import open_clip
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from open_clip.transformer import TextTransformer

from model.backbones.packaged.compact import compact_text_tower
from model.backbones.sources import COMPACT
from model.backbones.views.clip import ClipTextTower
from model.backbones.wording import TextFault, text_fault, wording
from model.checkpoint import METHOD, load_recognizer, read_method
from model.config.towers import CompactConfig
from model.slots import TextBackbone
from model.text import PROMPT, clean, label_key, prompts, spoken, template_stages
from tests.model.families import SIGLIP_LIKE, siglip_weights
from tests.model.labels import CYRILLIC, JAPANESE, made_up_labels
from tests.model.tiny import tiny_recognizer

OWN = ("Raise the arm.", "Swing it from side to side.", "Let it fall.")
JAPANESE_OWN = (
    "腕をゆっくり上げて止める。",
    "左右に大きく振り続ける。",
    "そのまま力を抜いて下ろす。",
)
LONG = tuple(f"{number} person walks up to the camera and turns around" * 4 for number in "123")
SENTENCES = {"template": None, "japanese": JAPANESE_OWN, "long": LONG}
CODES = {"words-unknown", "label-unread", "label-too-long", "stages-alike"}


@cache
def clip_tower() -> TextBackbone:
    """CLIP's tokens, above a transformer of random weights that is as small as it can be."""
    model = TextTransformer(
        context_length=77, vocab_size=49408, width=8, heads=1, layers=1, output_dim=8
    )
    tower = ClipTextTower(model.eval(), open_clip.get_tokenizer("ViT-B-16-quickgelu"))
    tower.read = cache(tower.read)  # type: ignore[method-assign]  # the tests read the same texts
    return tower


@cache
def compact_tower() -> TextBackbone:
    """The packaged tower's words."""
    backbone = read_method((COMPACT / METHOD).read_bytes(), COMPACT).backbone
    assert isinstance(backbone, CompactConfig)
    assert backbone.text is not None
    return compact_text_tower(backbone.text, features=8)


TOWERS = {"clip": clip_tower, "compact": compact_tower}


def faulty(tower: TextBackbone, label: str, stages: tuple[str, ...]) -> TextFault | None:
    """Return the fault of a label, after a look at whether it is true."""
    fault = text_fault(tower, label, stages, PROMPT)
    if fault is None:
        worded = wording(tower, label, stages, PROMPT)
        read = [tower.read(text) for text in worded.texts]
        assert None not in read, "a text is cut"
        assert len(set(read)) == len(set(stages)), "stages that differ are one text"
        assert all(spoken(label) in text for text in worded.texts), "the label is cut"
        assert tower.read(spoken(label)) != tower.read(""), "nothing of the label is read"
    else:
        assert fault.code in CODES
        assert repr(label) in fault.sentence
        assert "so the task is scored by video alone; " in fault.sentence
    return fault


@pytest.mark.parametrize("sentences", SENTENCES)
@pytest.mark.parametrize("name", TOWERS)
def test_stages_of_200_labels_differ_or_the_reason_says_why(name: str, sentences: str) -> None:
    tower = TOWERS[name]()
    labels = made_up_labels()
    assert len(set(labels)) == 200
    faults = {
        label: faulty(tower, label, SENTENCES[sentences] or template_stages(label))
        for label in labels
    }
    read = {label for label, fault in faults.items() if fault is None}
    if name == "clip":
        assert len(read) >= 100
        assert {label for label in read if len(label) > 40}, "long labels are shortened, not lost"
    elif sentences == "template":
        assert {"wave", "push", "Stand", "Climb-Stairs", "wave!", "ｗａｖｅ"} <= read
        assert not {"wave 👋", "push + throw", "!!!"} & read


def test_a_clip_label_has_text_exactly_where_it_and_a_stage_fit_together() -> None:
    tower = clip_tower()
    for label in made_up_labels():
        fault = faulty(tower, label, template_stages(label))
        fits = tower.read(f"{spoken(label)} goes on") is not None
        unread = tower.read(spoken(label)) == tower.read("")
        assert (None if fault is None else fault.code) == (
            "label-unread" if unread else None if fits else "label-too-long"
        ), label


def test_the_prompt_is_shortened_first_then_the_sentences_and_the_label_never() -> None:
    tower, template = clip_tower(), template_stages

    def texts(label: str, stages: tuple[str, ...]) -> tuple[str, ...]:
        return wording(tower, label, stages, PROMPT).texts

    assert texts("wave", OWN) == prompts("wave", OWN)
    middle = "7" * 65  # a token each
    assert texts(middle, template(middle)) == template(middle)
    assert texts(middle, OWN) == tuple(f"{middle}: {stage}" for stage in OWN)
    long = next(  # has no room for "The" and the full stop
        label
        for label in ("7 " * n for n in range(70, 80))
        if tower.read(f"The {spoken(label)} goes on.") is None
    )
    assert texts(long, template(long))[1] == f"{spoken(long)} goes on"
    cut = "person walks up to the camera and turns"
    assert texts(middle, LONG) == tuple(f"{middle}: {number} {cut}" for number in "123")
    assert None in wording(tower, CYRILLIC, OWN, PROMPT).tokens


def test_the_88_letters_and_the_24_characters_of_the_issue() -> None:
    tower = clip_tower()
    assert len(CYRILLIC) == 88
    fault = text_fault(tower, CYRILLIC, template_stages(CYRILLIC), PROMPT)
    assert fault is not None
    assert fault.code == "label-too-long"
    assert "77 tokens" in fault.sentence
    assert "write it in English" in fault.sentence
    assert text_fault(tower, JAPANESE[:24], template_stages(JAPANESE[:24]), PROMPT) is None


def test_sentences_that_differ_behind_the_cut_are_one_text_and_it_is_said() -> None:
    alike = tuple("he lifts his arm " * 10 + end for end in ("up", "more", "down"))
    label = JAPANESE[:24]
    fault = text_fault(clip_tower(), label, alike, PROMPT)
    assert fault is not None
    assert fault.code == "stages-alike"
    assert text_fault(clip_tower(), label, ("the same",) * 3, PROMPT) is None, "as they were given"


def test_one_text_a_label_needs_room_for_the_label_alone() -> None:
    tower, prompt = clip_tower(), "a photo of {label}"
    assert wording(tower, "wave", ("wave",), prompt).texts == ("a photo of wave",)
    tight = "7" * 74
    assert wording(tower, tight, (tight,), prompt).texts == (tight,)
    assert text_fault(tower, tight, (tight,), prompt) is None
    over = "7" * 76
    fault = text_fault(tower, over, (over,), prompt)
    assert fault is not None
    assert fault.code == "label-too-long"


def test_a_recognizer_encodes_the_shortened_text() -> None:
    recognizer = tiny_recognizer()
    label = "turn left " * 8
    assert recognizer.text_fault(label, template_stages(label)) is None
    text_NAE = recognizer.encode_text([label], [template_stages(label)])
    (first, second, third) = text_NAE[0]
    assert not torch.allclose(first, second, atol=1e-4)
    assert not torch.allclose(second, third, atol=1e-4)


@pytest.mark.parametrize("padding", ["<pad>", "<eos>"])
def test_a_tokenizer_of_the_hub_is_asked_whether_it_cuts_and_what_it_lacks(
    tmp_path: Path, padding: str
) -> None:
    """SigLIP's pads with the sign that ends a text."""
    weights = siglip_weights(tmp_path)
    said = (tmp_path / "tokenizer_config.json").read_text()
    (tmp_path / "tokenizer_config.json").write_text(said.replace("<pad>", padding))
    text = load_recognizer(SIGLIP_LIKE, weights=weights).text
    assert text is not None
    for words in (1, 62, 63, 64, 65, 90):
        assert (text.tower.read("jump " * words) is None) == (words > 63), words
    prompt = "{label} {stage}"
    assert text_fault(text.tower, "jump", ("first", "then", "end"), prompt) is None
    for label in ("手 jump", "👋 jump"):
        fault = text_fault(text.tower, label, ("first", "then", "end"), prompt)
        assert fault is not None
        assert f"the words {label[0]!r} of label" in fault.sentence


@pytest.mark.parametrize(
    ("spellings", "words"),
    [
        (("BrushHair", "brush_hair", "Brush Hair", "brush-hair", "BRUSH_HAIR"), "brush hair"),
        (
            ("ＢｒｕｓｈＨａｉｒ", "brush\u3000hair", "brush＿hair", "ｂｒｕｓｈ　ｈａｉｒ"),
            "brush hair",
        ),
        (("Ko\u0308pfen", "K\u00f6pfen", "KÖPFEN"), "köpfen"),
        (("HTTPServer", "http_server", "HttpServer"), "http server"),
        (("Jump2Times", "jump_2_times", "jump2 times"), "jump 2 times"),
        (("DVDs", "dvds"), "dvds"),
        (("x-ray", "X-Ray"), "x-ray"),
        (("2x", "2X"), "2x"),
        (("ﬁsh", "FISH"), "fish"),
        (("ЧиститьЗубы", "чистить_зубы"), "чистить зубы"),
        (("push &amp; pull", "push & pull"), "push & pull"),
        (("<end_of_text>", "&amp;lt;end&#95;of&#95;text&gt;"), "<end of text>"),
        (("Straße kehren", "STRASSE KEHREN"), None),
        (("\u202ewave", "wave"), "wave"),
        (("می\u200cدود", "میدود"), None),
        (("❤\ufe0f", "❤"), None),
    ],
)
def test_spellings_of_one_text_have_one_key(spellings: tuple[str, ...], words: str | None) -> None:
    assert len({label_key(label) for label in spellings}) == 1
    if words is not None:
        assert {spoken(label) for label in spellings} == {words}


def test_labels_that_differ_have_keys_that_differ() -> None:
    labels = ["wave", "waves", "wave!", "push-up 2", "push-up 3", "x-ray", "xray", "2x", "2 x"]
    assert len({label_key(label) for label in labels}) == len(labels)


@given(st.text())
def test_what_is_spoken_is_spoken_once(label: str) -> None:
    words = spoken(label)
    assert spoken(words) == words
    assert label_key(words) == label_key(label)
    assert bool(words) == bool(clean(label))
