"""The matching heads: vectors of model/papers/matching.md, naive references, invariants."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from model.assembly.recognizer import build_recognizer
from model.backbones.opening import towers
from model.checkpoint import hash_tensors, load_recognizer, save_checkpoint
from model.config.matching import (
    BiMhmMatcher,
    CacheMatcher,
    FramePairMatcher,
    MatcherConfig,
    OtamMatcher,
    PrototypeMatcher,
    RidgeMatcher,
    TrxMatcher,
)
from model.config.method import METHOD_JSON, MethodConfig
from model.config.towers import TimmConfig
from model.episode import ClassSet
from model.errors import CheckpointError, MethodError
from model.matching.cosine import CosineOfMeans, FramePairs
from model.matching.frame_pairs import frame_distances
from model.matching.hausdorff import BiMhm, bi_mhm_distance
from model.matching.otam import Otam, otam_distance
from model.matching.trx import Trx, sinusoids
from model.methods import check_served
from model.prototypes.mean import shots_by_class
from model.recognizer import Recognizer
from tests.episodes import score_episode
from tests.model.tiny import LABELS, class_set, clips, tiny_method, tiny_recognizer, tiny_text

TRX = TrxMatcher(width=16)
COSINES: list[MatcherConfig] = [PrototypeMatcher(), FramePairMatcher(), CacheMatcher()]
DISTANCES: list[MatcherConfig] = [
    BiMhmMatcher(),
    OtamMatcher(),
    OtamMatcher(smoothing=0.5),
    RidgeMatcher(),  # its scores are no similarities either
    TRX,
]
READ_SHOTS = ("cache", "ridge", "trx")
CLASSES = [1, 0, 2, 1, 1, 0]  # ragged shots, unsorted
ROW, COLUMN = torch.meshgrid(
    torch.arange(8, dtype=torch.float64), torch.arange(8, dtype=torch.float64), indexing="ij"
)
SQUARES = (ROW - COLUMN) ** 2 / 49
SKEWED = (2 * ROW - COLUMN - 3) ** 2 / 121
UNEQUAL = 1 - torch.eye(8, dtype=torch.float64)


def kind(matcher: MatcherConfig) -> str:
    return f"{matcher.kind}-{getattr(matcher, 'smoothing', '')}".rstrip("-")


@pytest.fixture(params=COSINES + DISTANCES, ids=kind, scope="module")
def recognizer(request: pytest.FixtureRequest) -> Recognizer:
    return tiny_recognizer("task_adapter", matcher=request.param, fusion="video")


def random_frames(clips: int, *, seed: int = 0, frames: int = 8, features: int = 6) -> Tensor:
    noise = torch.Generator().manual_seed(seed)
    return torch.randn(clips, frames, features, generator=noise)


# Frame pairs


def test_frame_pairs_average_all_cosines() -> None:
    query, prototype = random_frames(3), random_frames(2, seed=1, frames=5)
    want = F.cosine_similarity(query[:, None, :, None], prototype[None, :, None], dim=-1)
    torch.testing.assert_close(FramePairs()(query, class_set(prototype)), want.mean(dim=(2, 3)))
    torch.testing.assert_close(frame_distances(query, prototype), 1 - want)


def test_frame_pairs_score_below_frame_means_where_frames_differ() -> None:
    """Frames X and Y against themselves: pairs average 1, 0, 0, 1; the means are equal."""
    clip_1TE = torch.eye(2)[None]
    torch.testing.assert_close(FramePairs()(clip_1TE, class_set(clip_1TE)), torch.tensor([[0.5]]))
    torch.testing.assert_close(
        CosineOfMeans()(clip_1TE, class_set(clip_1TE)), torch.tensor([[1.0]])
    )


# Bi-MHM


def test_bi_mhm_gives_the_vector_of_the_specification() -> None:
    assert float(bi_mhm_distance(SKEWED)) == pytest.approx(0.280992, abs=1e-6)


def test_bi_mhm_by_hand() -> None:
    """Rows' nearest are 1 and 2, columns' nearest are 1, 2 and 4."""
    distance = torch.tensor([[1.0, 5.0, 4.0], [3.0, 2.0, 6.0]])
    assert float(bi_mhm_distance(distance)) == 3 + 7


@given(st.permutations(range(8)), st.permutations(range(8)))
def test_bi_mhm_knows_no_order_of_frames(of_query: list[int], of_prototype: list[int]) -> None:
    query, prototype = random_frames(2), random_frames(3, seed=1)
    torch.testing.assert_close(
        BiMhm()(query[:, of_query], class_set(prototype[:, of_prototype])),
        BiMhm()(query, class_set(prototype)),
    )


# OTAM


@pytest.mark.parametrize(
    ("distance", "smoothing", "want"),
    [
        (SQUARES, 0.1, -0.508413),
        (SQUARES.T, 0.1, -0.508413),
        (SQUARES, 0.5, -3.640609),
        (SKEWED, 0.1, -0.612524),
        (SKEWED.T, 0.1, -0.009717),
        (SKEWED, 0.5, -3.764826),
        (SKEWED.T, 0.5, -3.115547),
        (UNEQUAL.flip(0), 0.1, 6.286745),
    ],
)
def test_otam_gives_the_vectors_of_the_specification(
    distance: Tensor, smoothing: float, want: float
) -> None:
    assert float(otam_distance(distance, smoothing)) == pytest.approx(want, abs=1e-6)


def test_otam_of_equal_sequences_lies_just_below_zero() -> None:
    assert float(otam_distance(UNEQUAL, 0.1)) == pytest.approx(-2.27e-5, abs=1e-7)


@pytest.mark.parametrize(
    ("fill", "smoothing", "want"),
    [(0.0, 0.1, -0.84), (0.0, 0.5, -4.22), (1.0, 0.1, 7.25), (1.0, 0.5, 4.20)],
)
def test_otam_of_constant_distances_shows_the_bias_of_the_soft_minimum(
    fill: float, smoothing: float, want: float
) -> None:
    assert float(otam_distance(torch.full((8, 8), fill), smoothing)) == pytest.approx(
        want, abs=5e-3
    )


def recursion(distance: list[list[float]], softmin: Callable[..., Tensor]) -> Tensor:
    """Fill the padded table cell by cell, as the specification writes it."""
    rows, columns = len(distance), len(distance[0])
    cell = {(row, 0): torch.zeros((), dtype=torch.float64) for row in range(rows)}
    for row in range(rows):
        for m in range(1, columns + 2):
            cost = distance[row][m - 1] if m <= columns else 0.0
            if row == 0:
                before = cell[0, m - 1]
            elif m in (1, columns + 1):
                before = softmin(cell[row - 1, m - 1], cell[row - 1, m], cell[row, m - 1])
            else:
                before = softmin(cell[row - 1, m - 1], cell[row, m - 1])
            cell[row, m] = before + cost
    return cell[rows - 1, columns + 1]


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 6),
    st.integers(1, 6),
    st.sampled_from([0.05, 0.1, 0.5, 2.0]),
    st.integers(0, 1000),
)
def test_otam_equals_the_recursion_cell_by_cell(
    rows: int, columns: int, smoothing: float, seed: int
) -> None:
    noise = torch.Generator().manual_seed(seed)
    distance = 2 * torch.rand(rows, columns, dtype=torch.float64, generator=noise)

    def softmin(*costs: Tensor) -> Tensor:
        return -smoothing * torch.logsumexp(-torch.stack(costs) / smoothing, dim=0)

    want = recursion(distance.tolist(), softmin)
    torch.testing.assert_close(otam_distance(distance, smoothing), want)


@pytest.mark.parametrize("smoothing", [1e-5, 1e-3, 0.02])
def test_otam_approaches_the_hard_minimum_and_never_overflows(smoothing: float) -> None:
    distance = frame_distances(random_frames(1), random_frames(1, seed=1))[0, 0].requires_grad_()
    got = otam_distance(distance, smoothing)
    got.backward()
    want = recursion(distance.tolist(), lambda *costs: torch.stack(costs).min())
    assert got.item() == pytest.approx(float(want), abs=30 * smoothing)
    assert distance.grad is not None
    assert torch.isfinite(distance.grad).all()


@given(st.permutations(range(8)).filter(lambda order: order != list(range(8))))
def test_otam_prefers_the_right_order_of_frames(order: list[int]) -> None:
    clip_1TE = torch.eye(8)[None]  # frames without likeness to each other
    otam, classes = Otam(0.1), class_set(clip_1TE)
    right = otam(clip_1TE, classes)
    assert float(otam(clip_1TE[:, order], classes)) < float(right) - 0.5


# TRX


def of_shots(*shots: Tensor) -> ClassSet:
    """Return classes with these shots, as TRX reads them."""
    means = torch.stack([shots_KTE.mean(dim=0) for shots_KTE in shots])
    return ClassSet(means, tuple(map(len, shots)), shots)


def trx_of(features: int = 6, frames: int = 8, width: int = 5, seed: int = 0) -> Trx:
    torch.manual_seed(seed)
    trx = Trx(features, frames, width=width).eval()
    with torch.no_grad():
        for parameter in trx.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return trx


@pytest.mark.parametrize(
    ("features", "cardinality", "want"), [(512, 2, 2_366_208), (512, 3, 3_545_856)]
)
def test_trx_has_the_papers_size_but_the_unused_norm(
    features: int, cardinality: int, want: int
) -> None:
    trx = Trx(features, 8, cardinalities=[cardinality])
    assert sum(parameter.numel() for parameter in trx.parameters()) == want - 2 * 1152


@pytest.mark.parametrize(("features", "millions"), [(512, 5.91), (768, 8.86), (2048, 23.6)])
def test_trx_of_pairs_and_triples_has_the_papers_size(features: int, millions: float) -> None:
    total = sum(parameter.numel() for parameter in Trx(features, 8).parameters())
    assert (total + 2 * 2 * 1152) / 1e6 == pytest.approx(millions, abs=0.05)


@torch.inference_mode()
def test_trx_equals_attention_written_out() -> None:
    trx, query_QTE = trx_of(), random_frames(2)
    shots = [random_frames(count, seed=count) for count in (1, 3)]
    distances: list[Tensor] = []
    for cardinality, head in zip((2, 3), trx.tuples, strict=True):

        def tuples(frames_TE: Tensor, cardinality: int = cardinality) -> Tensor:
            frames_TE = F.layer_norm(frames_TE, (6,)) + 0.1 * sinusoids(8, 6)
            places = itertools.combinations(range(8), cardinality)
            return torch.stack([frames_TE[list(place)].flatten() for place in places])

        for frames_TE, shots_KTE in itertools.product(query_QTE, shots):
            own = tuples(frames_TE)
            theirs = torch.cat([tuples(shot_TE) for shot_TE in shots_KTE])
            logits = head.norm(head.key(own)) @ head.norm(head.key(theirs)).T / 5**0.5
            made = logits.softmax(dim=1) @ head.value(theirs)
            distances.append(((head.value(own) - made) ** 2).sum(dim=1).mean())
    want_QN = -torch.stack(distances).view(2, 2, 2).mean(dim=0)
    torch.testing.assert_close(trx(query_QTE, of_shots(*shots)), want_QN, atol=1e-4, rtol=1e-4)


def test_places_are_encoded_as_sines_and_cosines() -> None:
    want = torch.tensor([[0.0, 1.0, 0.0], [0.841471, 0.540302, 0.002154]])
    torch.testing.assert_close(sinusoids(2, 3), want, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_trx_does_not_depend_on_the_scale_of_features() -> None:
    trx, query, support = trx_of(), random_frames(2), random_frames(3, seed=1)
    want = trx(query, of_shots(support[:1], support[1:]))
    got = trx(100 * query, of_shots(100 * support[:1], 100 * support[1:]))
    torch.testing.assert_close(got, want, atol=1e-3, rtol=1e-3)


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(4)))
@torch.inference_mode()
def test_trx_knows_no_order_of_shots_but_one_of_frames(order: list[int]) -> None:
    trx, query, shots = trx_of(), random_frames(2), random_frames(4, seed=1)
    want = trx(query, of_shots(shots, shots[:1]))
    torch.testing.assert_close(
        trx(query, of_shots(shots[order], shots[:1])), want, atol=1e-4, rtol=1e-4
    )
    twice = torch.cat([shots, shots])
    torch.testing.assert_close(trx(query, of_shots(twice, shots[:1])), want, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(trx(query.flip(1), of_shots(shots, shots[:1])), want, atol=1e-2)


def test_trx_drops_out_in_training_alone() -> None:
    trx, query = trx_of(), random_frames(2)
    shots = of_shots(*random_frames(2, seed=1)[:, None])
    torch.testing.assert_close(trx(query, shots), trx(query, shots), atol=0, rtol=0)
    trx.train()
    assert not torch.equal(trx(query, shots), trx(query, shots))


def test_shots_are_sorted_into_their_classes() -> None:
    features = torch.arange(6.0)[:, None, None]
    got = [shots.flatten().tolist() for shots in shots_by_class(features, torch.tensor(CLASSES))]
    assert got == [[1, 5], [0, 3, 4], [2]]


# Every matcher in a recogniser


@torch.inference_mode()
def test_cached_supports_score_as_the_whole_episode(recognizer: Recognizer) -> None:
    support, query = recognizer.trunk(clips(6, seed=1)), recognizer.trunk(clips(4, seed=3))
    whole = score_episode(recognizer, support, CLASSES, query, None)
    task = recognizer.encode_support(support, CLASSES, None)
    cached = recognizer.match(recognizer.encode_query(query, [task] * 4), [task] * 4)
    got = torch.tensor([score.logits_N for score in cached])
    torch.testing.assert_close(got, whole.logits_QN, atol=1e-3, rtol=1e-4)
    assert whole.logits_QN.shape == (4, 3)
    assert task.counts == (2, 3, 1)


@torch.inference_mode()
def test_a_query_scores_by_itself_and_the_supports_alone(recognizer: Recognizer) -> None:
    support, query = random_frames(6, features=32), random_frames(5, seed=1, features=32)
    classes_S = torch.tensor(CLASSES)
    together = recognizer.score_features(support, classes_S, query, None).logits_QN
    for index in range(5):
        alone = recognizer.score_features(support, classes_S, query[index : index + 1], None)
        torch.testing.assert_close(
            alone.logits_QN, together[index : index + 1], atol=1e-3, rtol=1e-5
        )


@torch.inference_mode()
def test_permuted_classes_permute_the_scores(recognizer: Recognizer) -> None:
    support, query = random_frames(6, features=32), random_frames(5, seed=1, features=32)
    new_index = torch.tensor([2, 0, 1])
    plain = recognizer.score_features(support, torch.tensor(CLASSES), query, None).logits_QN
    permuted = recognizer.score_features(support, new_index[CLASSES], query, None).logits_QN
    torch.testing.assert_close(permuted[:, new_index], plain, atol=1e-3, rtol=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize("ways", [2, 7])
@pytest.mark.parametrize("matcher", [*COSINES, *DISTANCES[:-1]], ids=kind)
def test_a_clip_scores_highest_for_its_own_class(matcher: MatcherConfig, ways: int) -> None:
    """Random weights of TRX make no such promise."""
    recognizer = tiny_recognizer("frozen", matcher=matcher, fusion="video")
    support = random_frames(ways, features=32)
    scores = recognizer.score_features(support, torch.arange(ways), support, None)
    assert scores.video_QN.argmax(dim=1).tolist() == list(range(ways))


def test_gradients_are_finite_even_for_equal_and_zero_frames(recognizer: Recognizer) -> None:
    support = random_frames(6, features=32)
    query = torch.cat([support[:1], torch.zeros(1, 8, 32), support[1:2, :1].expand(1, 8, 32)])
    support, query = support.requires_grad_(), query.detach().requires_grad_()
    scores = recognizer.score_features(support, torch.tensor(CLASSES), query, None)
    F.cross_entropy(scores.logits_QN, torch.tensor([1, 0, 2])).backward()
    for tensor in (support, query):
        assert tensor.grad is not None
        assert torch.isfinite(tensor.grad).all()
        assert tensor.grad.any()
    recognizer.zero_grad()


def test_every_matcher_may_be_served(recognizer: Recognizer) -> None:
    check_served(recognizer.config)


@pytest.mark.parametrize("matcher", COSINES, ids=kind)
def test_cosines_are_scaled_and_multiplied_with_text(matcher: MatcherConfig) -> None:
    recognizer = tiny_recognizer("frozen", matcher=matcher)
    support, query = random_frames(2, features=32), random_frames(3, seed=1, features=32)
    text_NAE = tiny_text(recognizer, LABELS[:2])
    scores = recognizer.score_features(support, torch.tensor([0, 1]), query, text_NAE)
    assert scores.text_QN is not None
    assert scores.video_QN.abs().max() <= 1
    torch.testing.assert_close(scores.logits_QN, 64 * scores.video_QN * scores.text_QN)
    alone = recognizer.score_features(support, torch.tensor([0, 1]), query, None)
    torch.testing.assert_close(alone.logits_QN, 64 * scores.video_QN)


@pytest.mark.parametrize("matcher", DISTANCES, ids=kind)
def test_negative_distances_are_logits_as_they_are(matcher: MatcherConfig) -> None:
    recognizer = tiny_recognizer("frozen", matcher=matcher, fusion="video")
    support, query = random_frames(2, features=32), random_frames(3, seed=1, features=32)
    scores = recognizer.score_features(support, torch.tensor([0, 1]), query, None)
    assert torch.equal(scores.logits_QN, scores.video_QN)


@pytest.mark.parametrize("matcher", COSINES + DISTANCES, ids=kind)
def test_shots_are_kept_for_matchers_that_read_them_alone(matcher: MatcherConfig) -> None:
    recognizer = tiny_recognizer("frozen", matcher=matcher, fusion="video")
    with torch.inference_mode():
        task = recognizer.encode_support(recognizer.trunk(clips(6)), CLASSES, None)
    kept = [len(shots_KTE) for shots_KTE in task.classes.shots]
    held_out = 6 * 8 * 32  # the clips' own features, for a diagnosis
    floats = 3 * 8 * 32 + sum(kept) * 8 * 32 + 3 * 32 + held_out  # and means, shots, `nearest`
    assert kept == ([2, 3, 1] if matcher.kind in READ_SHOTS else [])
    assert task.bytes == 4 * floats


# Configs, refusals, checkpoints


@pytest.mark.parametrize("matcher", DISTANCES, ids=kind)
def test_a_distance_is_no_factor_of_a_product(matcher: MatcherConfig) -> None:
    with pytest.raises(MethodError, match=f"'{matcher.kind}'.*set fusion to 'video', "):
        tiny_recognizer(matcher=matcher)


@pytest.mark.parametrize(
    ("matcher", "message"),
    [
        (OtamMatcher(smoothing=0.0), "smoothing is 0.0"),
        (OtamMatcher(smoothing=float("nan")), "smoothing is nan"),
        (TrxMatcher(cardinalities=()), r"cardinalities are \[\]"),
        (TrxMatcher(cardinalities=(2, 9)), "1 to 8 frames"),
        (TrxMatcher(width=0), "width is 0"),
        (TrxMatcher(dropout=1.0), "dropout is 1.0"),
    ],
)
def test_matchers_that_cannot_work_are_refused(matcher: MatcherConfig, message: str) -> None:
    with pytest.raises(MethodError, match=message):
        tiny_recognizer("frozen", matcher=matcher, fusion="video")


@pytest.mark.parametrize("matcher", COSINES + DISTANCES, ids=kind)
def test_matchers_survive_a_round_trip_through_json(matcher: MatcherConfig) -> None:
    method = tiny_method(matcher=matcher)
    assert METHOD_JSON.validate_json(METHOD_JSON.dump_json(method)) == method


def test_the_default_matcher_is_not_written_so_that_fingerprints_stay() -> None:
    assert "matcher" not in json.loads(METHOD_JSON.dump_json(tiny_method()))


def test_trx_survives_a_round_trip_through_a_checkpoint(tmp_path: Path) -> None:
    saved = tiny_recognizer(matcher=TRX, fusion="video")
    save_checkpoint(saved, tmp_path / "saved", "# TRX\n")
    loaded = load_recognizer(str(tmp_path / "saved"))
    support, query = random_frames(6, features=32), random_frames(3, seed=1, features=32)
    got, want = (
        one.score_features(support, torch.tensor(CLASSES), query, None).logits_QN
        for one in (loaded, saved)
    )
    torch.testing.assert_close(got, want, atol=0, rtol=0)


def test_a_checkpoint_without_a_tensor_of_trx_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tiny_recognizer(matcher=TRX, fusion="video"), tmp_path, "")
    with safe_open(tmp_path / "weights.safetensors", framework="pt") as opened:
        metadata = opened.metadata()
    tensors = load_file(tmp_path / "weights.safetensors")
    del tensors["matcher.tuples.1.norm.bias"]
    metadata["tensors"] = hash_tensors(tensors)
    save_file(tensors, tmp_path / "weights.safetensors", metadata)
    with pytest.raises(CheckpointError, match=r"lacks matcher\.tuples\.1\.norm\.bias"):
        load_recognizer(str(tmp_path))


def test_trx_over_frozen_towers_is_all_that_a_checkpoint_stores(tmp_path: Path) -> None:
    backbone = TimmConfig(name="vit_tiny_patch16_224", pretrained=False)
    method = MethodConfig(backbone=backbone, matcher=TRX, fusion="video")
    torch.manual_seed(0)
    recognizer = build_recognizer(method, *towers(backbone))
    assert recognizer.trained  # random weights are no backbone
    save_checkpoint(recognizer, tmp_path / "saved", "")
    stored = load_file(tmp_path / "saved" / "weights.safetensors")
    assert sorted(stored) == sorted(
        f"matcher.tuples.{place}.{part}.{name}"
        for place, part, name in itertools.product(
            (0, 1), ("key", "value", "norm"), ("weight", "bias")
        )
    )
