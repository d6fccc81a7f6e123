"""Matching by hand, and its properties."""

import itertools

import torch
from hypothesis import given
from hypothesis import strategies as st

from model.matching.cosine import CosineOfMeans
from model.matching.stages import align, stage_scores, stage_windows
from model.prototypes.mean import mean_by_class
from tests.model.tiny import class_set

X, Y, Z = torch.eye(3)


def test_cosine_of_means_by_hand() -> None:
    """Frame means are normalised after averaging: X, X, Y has cosine 2/sqrt(5) with X."""
    query_QTE = torch.stack([torch.stack([X, X, Y]), torch.stack([Y, Y, Y])])
    prototype_NTE = torch.stack([torch.stack([X, X, X]), torch.stack([2 * Y, Y, Y])])
    want = torch.tensor([[2 / 5**0.5, 1 / 5**0.5], [0.0, 1.0]])
    torch.testing.assert_close(CosineOfMeans()(query_QTE, class_set(prototype_NTE)), want)


def test_prototypes_average_ragged_shots() -> None:
    features_STE = torch.stack([X, 3 * X, Y]).unsqueeze(1)
    got = mean_by_class(features_STE, torch.tensor([0, 0, 1]))
    torch.testing.assert_close(got, torch.stack([2 * X, Y]).unsqueeze(1))


def test_eight_frames_have_the_papers_windows() -> None:
    steps = list(range(1, 8))
    assert [steps[window] for window in stage_windows(7, 3)] == [[1, 2, 3], [3, 4, 5], [5, 6, 7]]


@given(st.integers(min_value=1, max_value=10), st.integers(min_value=0, max_value=190))
def test_windows_cover_all_steps_and_overlap_by_at_most_one(stages: int, more: int) -> None:
    steps = stages + more
    windows = [list(range(steps))[window] for window in stage_windows(steps, stages)]
    assert len(windows) == stages
    assert sorted({step for window in windows for step in window}) == list(range(steps))
    assert all(len(set(a) & set(b)) <= 1 for a, b in itertools.pairwise(windows))
    assert windows[0][0] == 0
    assert windows[-1][-1] == steps - 1
    assert max(map(len, windows)) - min(map(len, windows)) <= 1


def clip_of_stages() -> torch.Tensor:
    """Nine frames: one lead-in, then X, X, X, Y, Y, Y, Z, Z, of which windows see eight steps."""
    return torch.stack([X, X, X, Y, Y, Y, Z, Z, Z]).unsqueeze(0)


def test_stage_scores_by_hand() -> None:
    """Steps X X Y Y Y Z Z Z in windows 0-2, 2-5, 5-7: stages see (2/3 X), (2/4 Y), all Z."""
    aligned_QUE = align(clip_of_stages(), "identity")
    text_NAE = torch.stack([torch.stack([X, Y, Z]), torch.stack([Z, Y, X])])
    got = stage_scores(aligned_QUE, text_NAE, "frames")
    want = torch.tensor([[[2 / 3, 3 / 4, 1.0], [0.0, 3 / 4, 0.0]]])
    torch.testing.assert_close(got, want)


def test_mean_cosine_normalises_after_averaging() -> None:
    """The first window X, X, Y has the mean (2, 1, 0)/3, of cosine 2/sqrt(5) with X."""
    aligned_QUE = align(clip_of_stages(), "identity")
    text_NAE = torch.stack([torch.stack([X, X, X])])
    got = stage_scores(aligned_QUE, text_NAE, "mean")
    torch.testing.assert_close(got[0, 0, 0], torch.tensor(2 / 5**0.5))


def test_right_order_scores_above_wrong_order() -> None:
    aligned_QUE = align(clip_of_stages(), "identity")
    text_NAE = torch.stack([torch.stack([X, Y, Z]), torch.stack([Z, Y, X])])
    right, wrong = stage_scores(aligned_QUE, text_NAE, "frames").mean(dim=-1)[0]
    assert right > wrong


def test_joint_alignment_of_a_single_query_scores_as_identity() -> None:
    query_QTE = torch.randn(1, 8, 16)
    joint, identity = align(query_QTE, "joint"), align(query_QTE, "identity")
    torch.testing.assert_close(joint, 2 * identity)  # equal for a cosine


def test_temporal_alignment_stays_within_the_clip() -> None:
    queries = torch.randn(3, 8, 16)
    torch.testing.assert_close(align(queries, "temporal")[:1], align(queries[:1], "temporal"))
    assert not torch.allclose(align(queries, "joint")[:1], align(queries[:1], "joint"))
