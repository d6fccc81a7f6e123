"""What stands above the encoders computes in float32, whatever precision a caller asks for."""

from dataclasses import fields

import pytest
import torch
from torch import Tensor

from model.config.matching import FramePairMatcher, TrxMatcher
from model.episode import ClassSet, Scores
from model.methods import METHODS
from model.recognizer import Recognizer
from tests.model.tiny import LABELS, clips, tiny_recognizer, tiny_text

CLASSES = [0, 0, 1, 1, 2, 2]
CHANGES: dict[str, dict[str, object]] = {
    **{preset: {"preset": preset} for preset in METHODS},
    "frame_pairs": {"preset": "aim_top", "matcher": FramePairMatcher()},
    "trx": {"preset": "aim_top", "fusion": "video", "matcher": TrxMatcher(width=16)},
    "aligned": {"preset": "task_adapter_pp", "align": "temporal"},
    "aligned jointly": {"preset": "task_adapter_pp", "align": "joint"},
}


@pytest.fixture(params=CHANGES)
def recognizer(request: pytest.FixtureRequest) -> Recognizer:
    return tiny_recognizer(**CHANGES[request.param])


def half() -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16)


def same(one: Scores | ClassSet, other: Scores | ClassSet) -> None:
    """Check that all tensors agree to the bit, and none was rounded to 16 bits."""
    for field in fields(one):
        pair = [getattr(each, field.name) for each in (one, other)]
        for mine, theirs in zip(*(tensors(value) for value in pair), strict=True):
            assert mine.dtype == theirs.dtype == torch.float32
            assert torch.equal(mine, theirs), field.name


def tensors(value: object) -> list[Tensor]:
    parts = value if isinstance(value, tuple) else (value,)
    return [part for part in parts if isinstance(part, Tensor)]


@torch.inference_mode()
def test_heads_prototypes_and_distances_are_float32_under_autocast(recognizer: Recognizer) -> None:
    text_NAE = tiny_text(recognizer, LABELS[:3])
    shown, asked = recognizer.trunk(clips(6, seed=1)), recognizer.trunk(clips(4, seed=2))
    classes_S = torch.tensor(CLASSES)
    support_GSTE, query_GQTE = recognizer.encode_episodes(shown[None], classes_S, asked[None])
    episode = support_GSTE[0], classes_S, query_GQTE[0], text_NAE
    plain = recognizer.score_features(*episode)
    registered = recognizer.support_of(support_GSTE[0], CLASSES, text_NAE)
    with half():
        same(plain, recognizer.score_features(*episode))
        rounded = recognizer.support_of(support_GSTE[0], CLASSES, text_NAE)
        same(registered.classes, rounded.classes)
        for scored in recognizer.score(query_GQTE[0], [rounded] * 4):
            assert scored.scores.logits_QN.dtype == torch.float32
        support_GSTE, query_GQTE = recognizer.encode_episodes(shown[None], classes_S, asked[None])
        made = recognizer.score_features(support_GSTE[0], classes_S, query_GQTE[0], text_NAE)
    assert {t.dtype for field in fields(made) for t in tensors(getattr(made, field.name))} == {
        torch.float32
    }
