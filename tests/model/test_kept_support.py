"""Encoded supports as bytes: what any method makes of its supports comes back and scores alike."""

import contextlib
from dataclasses import fields, is_dataclass, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load, save

from model.calibration.fitted import Calibration
from model.config.matching import (
    BiMhmMatcher,
    FramePairMatcher,
    MatcherConfig,
    OtamMatcher,
    PrototypeMatcher,
    TrxMatcher,
)
from model.episode import ClassSet, EncodedSupport, Memory, SupportClips
from model.errors import EpisodeError
from model.methods import METHODS
from model.passes.kept_support import from_bytes, to_bytes
from model.recognizer import Recognizer
from tests.model.tiny import LABELS, clips, tiny_recognizer, tiny_text

CLASSES = [2, 0, 1, 1, 0, 1]
CPU = torch.device("cpu")
MATCHERS: list[MatcherConfig] = [
    PrototypeMatcher(),
    FramePairMatcher(),
    BiMhmMatcher(),
    OtamMatcher(),
    TrxMatcher(),
]


def supports_of(recognizer: Recognizer) -> EncodedSupport:
    """Encode six clips of three labels as the service does."""
    with torch.inference_mode():
        text_NAE = tiny_text(recognizer, LABELS[:3])
        tokens = recognizer.trunk(clips(len(CLASSES), frames=recognizer.config.frames))
        return recognizer.encode_support(tokens, CLASSES, text_NAE).named("abcdef")


def same(one: object, other: object) -> bool:
    """Tell whether two values agree in every field, tensors bit for bit."""
    if isinstance(one, torch.Tensor):
        assert isinstance(other, torch.Tensor)
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, tuple):
        assert isinstance(other, tuple)
        return len(one) == len(other) and all(map(same, one, other))
    if is_dataclass(one):
        pairs = ((getattr(one, each.name), getattr(other, each.name)) for each in fields(one))
        return type(one) is type(other) and all(same(*pair) for pair in pairs)
    return one == other


def comes_back(recognizer: Recognizer) -> EncodedSupport:
    """Assert that supports come back, and that a query scores the same against both."""
    made = supports_of(recognizer)
    found = from_bytes(to_bytes(made), CPU)
    assert same(found, made)
    with torch.inference_mode():
        tokens = recognizer.trunk(clips(2, seed=9, frames=recognizer.config.frames))
        scores = [
            recognizer.match(recognizer.encode_query(tokens, [given] * 2), [given] * 2)
            for given in (made, found)
        ]
    assert scores[0] == scores[1]
    return found


@pytest.mark.parametrize("preset", METHODS)
def test_supports_of_every_preset_come_back(preset: str) -> None:
    comes_back(tiny_recognizer(preset))


@pytest.mark.parametrize("matcher", MATCHERS, ids=lambda matcher: type(matcher).__name__)
def test_supports_of_every_matcher_come_back(matcher: MatcherConfig) -> None:
    recognizer = tiny_recognizer("frozen", matcher=matcher, fusion="video")
    found = comes_back(recognizer)
    assert bool(found.classes.shots) == recognizer.matcher.reads_shots


def test_memories_of_half_precision_come_back_dense_and_apart() -> None:
    found = comes_back(tiny_recognizer("task_adapter"))
    memory = next(memory for memory in found.memories if memory is not None)
    half = Memory(memory.keys_PHMW.bfloat16(), memory.values_PHMW.bfloat16())
    again = from_bytes(to_bytes(replace(found, memories=(None, half))), CPU)
    assert same(again.memories, (None, half))
    assert again.memories[1] is not None
    assert again.memories[1].keys_PHMW.data_ptr() % 16 == 0


def test_what_was_subtracted_comes_back() -> None:
    recognizer = tiny_recognizer("frozen")
    fitted = recognizer.calibration.model_dump() | {
        "mean": (0.25,) * recognizer.video.tower.features
    }
    recognizer.calibrate(Calibration(**fitted))
    assert comes_back(recognizer).classes.centre_NE is not None


def test_every_field_is_kept() -> None:
    """Whoever adds one to these values writes it down, too.

    And counts `FORMAT` up, unless supports that are kept already do without it.
    """
    names = {
        kind: [each.name for each in fields(kind)] for kind in (EncodedSupport, ClassSet, Memory)
    }
    assert names[ClassSet] == ["prototype_NTE", "counts", "shots", "centre_NE", "trust"]
    assert names[Memory] == ["keys_PHMW", "values_PHMW"]
    assert names[EncodedSupport] == [
        *("classes", "memories", "text_NAE", "fingerprint", "text_inside", "by_video", "by_text"),
        "clips",
    ]
    assert [each.name for each in fields(SupportClips)] == ["features_STE", "classes", "names"]


KEPT = to_bytes(supports_of(tiny_recognizer("task_adapter")))


@given(st.integers(0, len(KEPT) - 1), st.integers(1, 255))
def test_damage_is_an_error_or_other_numbers(place: int, by: int) -> None:
    damaged = bytearray(KEPT)
    damaged[place] ^= by
    with contextlib.suppress(EpisodeError):
        assert isinstance(from_bytes(bytes(damaged), CPU), EncodedSupport)


@pytest.mark.parametrize("content", [b"", b"x" * 100, KEPT[:-1], save({"a": torch.zeros(2)})])
def test_what_is_no_supports_is_refused(content: bytes) -> None:
    with pytest.raises(EpisodeError, match="encode them again"):
        from_bytes(content, CPU)


def test_tensors_that_do_not_belong_are_refused() -> None:
    for change in ({"more": torch.zeros(1)}, {"prototype_NTE": torch.zeros(1, 8, 4)}):
        with pytest.raises(EpisodeError, match="encode them again"):
            from_bytes(save(load(KEPT) | change), CPU)
