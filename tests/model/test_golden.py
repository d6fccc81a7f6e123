"""Parity with the published Task-Adapter++ computation, for every .npz of GOLDEN_DIR."""

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model.matching.cosine import CosineOfMeans
from model.matching.stages import align, stage_scores
from model.prototypes.mean import mean_by_class
from model.views import query_view, support_view
from tests.episodes import score_episode
from tests.model.golden import Golden
from tests.model.tiny import class_set

GOLDEN_DIR = Path(os.environ.get("GOLDEN_DIR", Path(__file__).parents[1] / "golden"))
FILES = sorted(GOLDEN_DIR.glob("*.npz"))


def test_there_are_golden_values() -> None:
    assert FILES, f"no .npz in {GOLDEN_DIR}"


@pytest.fixture(params=FILES, ids=lambda file: file.stem)
def golden(request: pytest.FixtureRequest) -> Golden:
    return Golden(request.param)


def close(got: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(got, want, atol=1e-4, rtol=0)


@torch.inference_mode()
def test_joint_pass_reproduces_every_published_output(golden: Golden) -> None:
    recognizer = golden.recognizer("joint", "joint")
    tokens_STLD = recognizer.video.trunk_of_pixels(golden.support_STCHW)
    tokens_QTLD = recognizer.video.trunk_of_pixels(golden.query_QTCHW)
    classes_S = torch.tensor(golden.classes)
    support_GSTE, query_GQTE = recognizer.encode_episodes(
        tokens_STLD[None], classes_S, tokens_QTLD[None]
    )
    support, query = support_GSTE[0], query_GQTE[0]
    close(support, golden.want("support_features"))
    close(query, golden.want("query_features"))

    assert recognizer.text is not None
    text_NAE = recognizer.text.stages(golden.tokens_NAL)
    close(text_NAE, golden.want("text_features"))
    aligned_QUE = align(query, "joint")
    close(aligned_QUE, golden.want("aligned"))
    text_QN = stage_scores(aligned_QUE, text_NAE, "frames").mean(dim=-1)
    close(text_QN, golden.want("text_score_class_by_query").T)
    video_QN = CosineOfMeans()(query, class_set(mean_by_class(support, classes_S)))
    close(video_QN, golden.want("video_score_query_by_class"))

    scores = score_episode(recognizer, tokens_STLD, golden.classes, tokens_QTLD, text_NAE)
    want_QN = golden.want("video_score_query_by_class") * golden.want("text_score_class_by_query").T
    close(scores.logits_QN / recognizer.config.scale, want_QN)


@torch.inference_mode()
def test_self_encodes_each_query_as_published_alone(golden: Golden) -> None:
    recognizer = golden.recognizer("self", "identity")
    tokens_STLD = recognizer.video.trunk_of_pixels(golden.support_STCHW)
    tokens_QTLD = recognizer.video.trunk_of_pixels(golden.query_QTCHW)
    view = support_view("self", torch.tensor(golden.classes), tokens_STLD.dtype)
    close(recognizer.video(tokens_STLD, view), golden.want("support_features"))
    query = recognizer.video(tokens_QTLD, query_view("self", []))
    close(query, golden.want("query_features_alone"))
