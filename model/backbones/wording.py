"""What a text tower reads of a class: its prompts, shortened until they fit, or why it cannot.

A tower cuts what is longer than its context, and from the end, where the stages differ. So the
prompt is shortened first, then the sentences of the stages, and the label never.
"""

from bisect import bisect_left
from dataclasses import dataclass
from functools import cache

from model.slots import TextBackbone
from model.text import StageTexts, prompts, prompts_of, shorter_prompts, spoken

Prompts = str | tuple[str, ...]  # of a method

SHOWN = 5  # words that a sentence lists


@dataclass(frozen=True, slots=True)
class Wording:
    """What a tower is given of a class."""

    texts: StageTexts
    tokens: tuple[tuple[int, ...] | None, ...]  # of each text; None where the tower would cut it


@dataclass(frozen=True, slots=True)
class TextFault:
    """Why text takes no part."""

    code: str  # for logs, which carry no label
    sentence: str  # names the label and the remedy


def wording(tower: TextBackbone, label: str, stages: StageTexts, prompt: Prompts) -> Wording:
    """Return the longest texts of a class that a tower reads whole; if it reads none, the last."""
    read = cache(tower.read)

    def fit(texts: StageTexts) -> bool:
        return all(read(text) is not None for text in texts)

    texts = prompts(label, stages, prompt)
    if not fit(texts):
        shorter = shorter_prompts(label, stages, prompt)
        place = bisect_left(shorter, True, key=fit)
        texts = shorter[min(place, len(shorter) - 1)]
    return Wording(texts, tuple(map(read, texts)))


def text_fault(
    tower: TextBackbone, label: str, stages: StageTexts, prompt: Prompts
) -> TextFault | None:
    """Say why a tower cannot read a class's text; None where it can.

    It can where it knows every word, nothing of the label is lost, and stages that differ stay
    texts that differ.
    """
    action = spoken(label)
    worded = wording(tower, label, stages, prompt)
    if lost := _lost(tower, action, worded.texts):
        named = ", ".join(map(repr, lost[:SHOWN]))
        return _fault(
            "words-unknown",
            f"The text tower never saw the words {named} of label {label!r}",
            "use other words, or serve a checkpoint whose text tower reads any",
        )
    if tower.read(action) == tower.read(""):
        return _fault(
            "label-unread",
            f"The text tower reads no word in the label {label!r}",
            "write in words what its clips show",
        )
    if None in worded.tokens:
        return _fault(
            "label-too-long",
            f"The label {label!r} leaves no room for its stages in the {tower.context} tokens that "
            "the text tower reads",
            "shorten the label, or write it in English, which takes fewer tokens",
        )
    if len(set(worded.tokens)) < min(
        len(set(prompts(label, stages, one))) for one in prompts_of(prompt)
    ):
        return _fault(
            "stages-alike",
            f"The text tower reads sentences of label {label!r} that differ as one text",
            "shorten the label, or write short sentences that differ in their first words",
        )
    return None


def _lost(tower: TextBackbone, action: str, texts: StageTexts) -> tuple[str, ...]:
    """Name what the tower drops: words of all texts, and signs of the label."""
    unknown = (word for text in texts for word in tower.unknown_words(text))
    return tuple(dict.fromkeys(w for w in unknown if w[0].isalnum() or w in action))


def _fault(code: str, what: str, remedy: str) -> TextFault:
    return TextFault(code, f"{what}, so the task is scored by video alone; {remedy}.")
