"""Parity with the published Task-Adapter++ computation, for every .npz of GOLDEN_DIR."""

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model.episode import mean_by_class
from model.matching.cosine import video_scores
from model.matching.stages import align, stage_scores
from tests.model.golden import Golden

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
    support, query = recognizer.video.adapt_episode(tokens_STLD, classes_S, tokens_QTLD)
    close(support, golden.want("support_features"))
    close(query, golden.want("query_features"))

    assert recognizer.text is not None
    text_NAE = recognizer.text.stages(golden.tokens_NAL)
    close(text_NAE, golden.want("text_features"))
    aligned_QUE = align(query, "joint")
    close(aligned_QUE, golden.want("aligned"))
    text_QN = stage_scores(aligned_QUE, text_NAE, "frames").mean(dim=-1)
    close(text_QN, golden.want("text_score_class_by_query").T)
    video_QN = video_scores(query, mean_by_class(support, classes_S))
    close(video_QN, golden.want("video_score_query_by_class"))

    scores = recognizer.score_episode(tokens_STLD, golden.classes, tokens_QTLD, text_NAE)
    want_QN = golden.want("video_score_query_by_class") * golden.want("text_score_class_by_query").T
    close(scores.logits_QN / recognizer.config.scale, want_QN)


@torch.inference_mode()
def test_self_encodes_each_query_as_published_alone(golden: Golden) -> None:
    recognizer = golden.recognizer("self", "identity")
    tokens_STLD = recognizer.video.trunk_of_pixels(golden.support_STCHW)
    tokens_QTLD = recognizer.video.trunk_of_pixels(golden.query_QTCHW)
    features, context = recognizer.video.adapt_support(tokens_STLD, torch.tensor(golden.classes))
    close(features, golden.want("support_features"))
    query = recognizer.video.adapt_query(tokens_QTLD, [context] * len(tokens_QTLD))
    close(query, golden.want("query_features_alone"))
