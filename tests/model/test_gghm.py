"""GgHM: values by formula (no code is public), EGNN's released graph, and a graph for each query.

`gghm_ldtm.npz` and `gghm_match.npz` pin our reading of the paper, not the authors' program.
"""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.assembly.temporal import build_temporal
from model.config.matching import BiMhmMatcher, TupleMatcher
from model.config.prototypes import GraphPrototypes as GraphConfig
from model.config.temporal import DenseConfig
from model.episode import ClassSet
from model.errors import MethodError
from model.matching.tuples import Tuples
from model.methods import check_served
from model.prototypes.edge_graph import EdgeGraph, first_edges
from model.prototypes.graph import GraphPrototypes, together
from model.recognizer import Recognizer
from model.temporal.dense import DenseTemporal
from tests.episodes import score_episode
from tests.model.golden_methods import Case, files_of
from tests.model.tiny import clips, tiny_recognizer

CLASSES = [0, 0, 1, 1, 1, 2]
GRAPH = GraphConfig(layers=2, hidden=8)
FUSED = {
    "embed": "embed",
    "norm": "ffn.norm",
    "mlp.0": "ffn.fc1",
    "mlp.2": "ffn.fc2",
    "fuse_in": "fuse.fc1",
    "fuse_out": "fuse.fc2",
}


def stem(file: Path) -> str:
    return file.stem


def both(names: dict[str, str]) -> dict[str, str]:
    """Name weights and biases."""
    return {
        f"{ours}.{kind}": f"{theirs}.{kind}"
        for ours, theirs in names.items()
        for kind in ("weight", "bias")
    }


# The graph, as EGNN's released code has it


class OverLast(nn.BatchNorm1d):
    """EGNN's norm: over the batch, in evaluation by what it measured."""

    def forward(self, values: Tensor) -> Tensor:
        return super().forward(values.flatten(0, -2)).view(values.shape)


def released_graph(case: Case) -> EdgeGraph:
    meta = case.meta
    graph = EdgeGraph(meta["features"], meta["hidden"], meta["layers"], norm=OverLast).eval()
    names, buffers = {}, {}
    for layer in range(meta["layers"]):
        stacks = (
            (f"nodes.{layer}", f"edge2node_net{layer}.network", 2),
            (f"edges.{layer}.0", f"node2edge_net{layer}.sim_network", 4),
        )
        for ours, theirs, steps in stacks:
            for step in range(steps):
                norm = f"{ours}.{3 * step + 1}", f"{theirs}.norm{step}"
                names[f"{ours}.{3 * step}.weight"] = f"{theirs}.conv{step}.weight"
                names |= both({norm[0]: norm[1]})
                for kind in ("running_mean", "running_var"):
                    buffers[f"{norm[0]}.{kind}"] = f"{norm[1]}.{kind}"
        names |= both({f"edges.{layer}.1": f"node2edge_net{layer}.sim_network.conv_out"})
    case.fill(graph, names)
    for ours, theirs in buffers.items():
        graph.get_buffer(ours).copy_(case.weight(theirs))
    case.assert_all_used()
    return graph


@torch.inference_mode()
@pytest.mark.parametrize("file", files_of("egnn"), ids=stem)
def test_edges_follow_their_nodes_as_released(file: Path) -> None:
    case = Case(file)
    graph = released_graph(case)
    class_NE, query_QE = case.inputs["support"], case.inputs["query"]
    ways, queries = len(class_NE), len(query_QE)
    assert case.meta["support_classes"] == list(range(ways))
    alone = graph(
        together(class_NE, query_QE),
        first_edges(ways, 1, class_NE).expand(queries, -1, -1, -1),
    )
    joint = graph(torch.cat([class_NE, query_QE])[None], first_edges(ways, queries, class_NE)[None])
    for layer, (of_each, of_all) in enumerate(zip(alone, joint, strict=True)):
        case.close(of_each, f"edges_alone_layer{layer}")
        case.close(of_all[0], f"edges_joint_layer{layer}")


def test_our_graph_normalises_each_node_by_itself() -> None:
    graph = EdgeGraph(6, 4, 2)
    norms = [part for part in graph.modules() if isinstance(part, nn.LayerNorm)]
    assert len(norms) == 2 * (2 + 4)
    assert not any(isinstance(part, nn.BatchNorm1d) for part in graph.modules())
    assert {norm.eps for norm in norms} == {1e-5}


# Dense modelling along time, by formula


def dense_of(case: Case) -> DenseTemporal:
    meta = case.meta
    dense = DenseTemporal(
        meta["channels"],
        meta["frames"],
        heads=meta["heads"],
        ratio=meta["mlp_ratio"],
        gap=meta["gap"],
        moved_share=meta["gamma"],
        patch_share=meta["beta"],
    ).eval()
    space = {"space.norm": "space.norm", "space.widen": "space.fc1", "space.narrow": "space.fc2"}
    space["space.attention.out_proj"] = "space.attn.out_proj"
    attention = {
        f"space.attention.in_proj_{kind}": f"space.attn.in_proj_{kind}"
        for kind in ("weight", "bias")
    }
    own = {"taps.weight": "channel_time"}
    case.fill(
        dense,
        both(space) | attention | own,
        kept=["time_in.weight", "time_out.weight"],
    )
    with torch.no_grad():  # the file multiplies from the other side
        dense.time_in.weight.copy_(case.weight("time1").T)
        dense.time_out.weight.copy_(case.weight("time2").T)
    case.assert_all_used()
    return dense


@torch.inference_mode()
@pytest.mark.parametrize("file", files_of("gghm_ldtm"), ids=stem)
def test_maps_are_modelled_along_time_as_our_formula_says(file: Path) -> None:
    case = Case(file)
    dense, maps = dense_of(case), case.inputs["maps"]
    map_BTPC = maps.flatten(3).transpose(2, 3)

    def as_map(made_BTPC: Tensor) -> Tensor:
        return made_BTPC.transpose(2, 3).unflatten(3, maps.shape[3:])

    case.close(as_map(dense.shifted(map_BTPC)), "shifted")
    case.close(as_map(dense.patch_branch(map_BTPC)), "patch_branch")
    case.close(as_map(dense.channel_branch(map_BTPC)), "channel_branch")
    case.close(as_map(dense.dense(map_BTPC)), "maps_out")
    case.close(dense([maps]), "frames_out")


@torch.inference_mode()
def test_dense_modelling_starts_as_the_mean_over_places() -> None:
    fresh = DenseTemporal(8, 4, heads=2, ratio=1.0, gap=4, moved_share=0.5, patch_share=0.5)
    maps = torch.randn(2, 4, 8, 3, 3)
    torch.testing.assert_close(fresh([maps]), maps.mean(dim=(3, 4)), atol=1e-5, rtol=1e-5)
    assert not fresh.is_initial()  # which no ViT's own feature is


def test_dense_modelling_has_the_size_of_the_specification() -> None:
    with torch.device("meta"):
        dense = DenseTemporal(2048, 8, heads=8, ratio=1.0, gap=4, moved_share=0.5, patch_share=0.5)
    assert sum(parameter.numel() for parameter in dense.parameters()) == 25_188_480


@torch.inference_mode()
def test_the_preset_stands_on_maps_of_a_vit_too_and_scores_queries_alone() -> None:
    recognizer = tiny_recognizer("gghm")
    check_served(recognizer.config)
    assert not recognizer.transductive
    assert recognizer.video.features == recognizer.video.tower.width
    support, query = recognizer.trunk(clips(6)), recognizer.trunk(clips(3, seed=3))
    task = recognizer.encode_support(support, CLASSES, None)
    together_ = recognizer.match(recognizer.encode_query(query, [task] * 3), [task] * 3)
    for place, mixed in enumerate(together_):
        one = query[place, None]
        (alone,) = recognizer.match(recognizer.encode_query(one, [task]), [task])
        assert mixed.logits_N == pytest.approx(alone.logits_N, abs=1e-4)


def test_a_network_of_whole_clips_has_no_maps_of_frames() -> None:
    with pytest.raises(MethodError, match="reads maps of frames"):
        build_temporal(DenseConfig(), 8, 8, ())


# Prototypes and matching, by formula


@pytest.fixture(params=files_of("gghm_match"), ids=stem)
def match_case(request: pytest.FixtureRequest) -> Case:
    file: Path = request.param
    return Case(file)


def prototypes_of(case: Case) -> GraphPrototypes:
    meta = case.meta
    prototypes = GraphPrototypes(
        meta["features"], hidden=4, layers=1, ratio=meta["mlp_ratio"], joint=True
    )
    graph = [name for name, _ in prototypes.named_parameters() if name.startswith("graph.")]
    case.fill(prototypes, both(FUSED), kept=graph)
    case.assert_all_used()
    return prototypes


def features_of(case: Case) -> tuple[ClassSet, Tensor]:
    """Return the classes and the queries, which share a direction, as features of a network do."""
    query, support = case.inputs["query"], case.inputs["support"]
    common = case.meta["shared"] * query[0, 0]
    shots = tuple(support + common)
    means = torch.stack([of_class.mean(dim=0) for of_class in shots])
    return ClassSet(means, tuple(len(of_class) for of_class in shots), shots), query + common


@torch.inference_mode()
def test_the_graph_guides_frames_as_our_formula_says(match_case: Case) -> None:
    prototypes, (classes, query) = prototypes_of(match_case), features_of(match_case)
    alike_VV = match_case.inputs["edge_logits"].sigmoid()
    edges_12VV = torch.stack([alike_VV, 1 - alike_VV])[None]
    alike_QVV = prototypes.selected(edges_12VV, len(query))[:, 0]
    match_case.close(alike_QVV, "selected")
    guided_QVE = prototypes.guided(alike_QVV, query, classes)
    match_case.close(guided_QVE, "graph_features")
    shots_QSTE, task_QTE = prototypes.of_task(guided_QVE, query, classes)
    match_case.close(shots_QSTE.unflatten(1, (len(classes.counts), -1)), "support_task")
    match_case.close(task_QTE, "query_task")


@torch.inference_mode()
@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_frames_and_tuples_match_as_our_formula_says(match_case: Case, metric: str) -> None:
    """The file's Euclidean distances are not divided by the root of the width; kshot's are."""
    meta, (classes, query) = match_case.meta, features_of(match_case)
    unit = meta["features"] ** 0.5 if metric == "l2" else 1.0
    shots_QNKTE, task_QTE = match_case.want("support_task"), match_case.want("query_task")
    for kind, share in (("frame", 0.0), ("tuple", 1.0), ("logits", meta["tuple_share"])):
        matcher = Tuples(meta["frames"], meta["features"], share, metric)  # type: ignore[arg-type]
        sign = 1 if kind == "logits" else -1
        match_case.close(sign * unit * matcher(query, classes), f"{kind}_{metric}_plain")
        guided = [
            matcher(one[None], ClassSet(shots.mean(dim=1), classes.counts, tuple(shots)))
            for one, shots in zip(task_QTE, shots_QNKTE, strict=True)
        ]
        match_case.close(sign * unit * torch.cat(guided), f"{kind}_{metric}")


def test_pairs_are_ordered_and_hold_their_places() -> None:
    matcher = Tuples(3, 4, 0.5, "cosine")
    pairs = matcher.pairs(torch.zeros(1, 3, 4))[0].unflatten(1, (2, 4))
    places = [(0, 1), (0, 2), (1, 2)]
    for pair, own in zip(pairs, places, strict=True):
        torch.testing.assert_close(pair, matcher.place_TE[list(own)])


# In a recogniser


def tiny(*, trained: bool = True, **changes: object) -> Recognizer:
    given = {"prototypes": GRAPH, "matcher": TupleMatcher(), "fusion": "video", **changes}
    return tiny_recognizer("frozen", trained=trained, **given)


def episode() -> tuple[Tensor, Tensor, Tensor]:
    noise = torch.Generator().manual_seed(0)
    support, query = (torch.randn(count, 8, 32, generator=noise) for count in (6, 4))
    return support, torch.tensor(CLASSES), query


@torch.inference_mode()
def test_a_graph_at_its_start_leaves_frames_as_they_are() -> None:
    fresh, plain = tiny(trained=False), tiny(prototypes=tiny_recognizer().config.prototypes)
    got, want = (one.score_features(*episode(), None).logits_QN for one in (fresh, plain))
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)
    assert fresh.prototypes.is_initial()
    assert not fresh.trained
    assert tiny().trained


@torch.inference_mode()
@pytest.mark.parametrize("matcher", [TupleMatcher(), TupleMatcher(metric="l2"), BiMhmMatcher()])
def test_a_query_scores_alone_as_among_others(matcher: TupleMatcher | BiMhmMatcher) -> None:
    recognizer = tiny(matcher=matcher)
    support, classes_S, query = episode()
    order = [2, 0, 3, 1, 2]
    mixed = recognizer.score_features(support, classes_S, query[order], None).logits_QN
    for place, own in enumerate(order):
        alone = recognizer.score_features(support, classes_S, query[own, None], None).logits_QN
        torch.testing.assert_close(alone[0], mixed[place], atol=1e-5, rtol=1e-5)
    assert not recognizer.transductive
    check_served(recognizer.config)


@torch.inference_mode()
def test_permuted_classes_permute_the_scores_and_shots_have_no_order() -> None:
    recognizer, (support, classes_S, query) = tiny(), episode()
    plain = recognizer.score_features(support, classes_S, query, None).logits_QN
    new_index = torch.tensor([2, 0, 1])
    permuted = recognizer.score_features(support, new_index[classes_S], query, None).logits_QN
    torch.testing.assert_close(permuted[:, new_index], plain, atol=1e-4, rtol=1e-4)
    order = [1, 0, 4, 2, 3, 5]
    shuffled = recognizer.score_features(support[order], classes_S, query, None).logits_QN
    torch.testing.assert_close(shuffled, plain, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_queries_of_several_tasks_meet_the_classes_of_their_own_alone() -> None:
    recognizer = tiny()
    assert recognizer.per_task
    tasks = [
        recognizer.encode_support(recognizer.trunk(clips(len(own), seed=seed)), own, None)
        for seed, own in ((1, CLASSES), (2, [0, 1]))
    ]
    query = recognizer.trunk(clips(4, seed=3))
    features = recognizer.encode_query(query, tasks * 2)
    together_ = recognizer.match(features, tasks * 2)
    for place, mixed in enumerate(together_):
        (alone,) = recognizer.match(features[place, None], [tasks[place % 2]])
        assert mixed.logits_N == pytest.approx(alone.logits_N, abs=1e-5)


@torch.inference_mode()
def test_supports_first_and_queries_later_score_as_an_episode() -> None:
    recognizer = tiny()
    support, query = recognizer.trunk(clips(6)), recognizer.trunk(clips(4, seed=3))
    whole = score_episode(recognizer, support, CLASSES, query, None).logits_QN
    task = recognizer.encode_support(support, CLASSES, None)
    cached = recognizer.match(recognizer.encode_query(query, [task] * 4), [task] * 4)
    got = torch.tensor([score.logits_N for score in cached])
    torch.testing.assert_close(got, whole, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_the_joint_graph_lets_queries_see_each_other_and_is_not_served() -> None:
    recognizer = tiny(prototypes=GraphConfig(layers=2, hidden=8, joint=True))
    support, classes_S, query = episode()
    together_ = recognizer.score_features(support, classes_S, query, None).logits_QN
    alone = recognizer.score_features(support, classes_S, query[:1], None).logits_QN
    assert not torch.allclose(alone, together_[:1], atol=1e-5)
    assert recognizer.transductive
    with pytest.raises(MethodError, match=r"so that they see each other; serve a graph for each"):
        check_served(recognizer.config)
    one = tiny().score_features(support, classes_S, query[:1], None).logits_QN
    torch.testing.assert_close(alone, one, atol=1e-5, rtol=1e-5)  # of one query they are the same


def test_gradients_reach_what_learns() -> None:
    recognizer, (support, classes_S, query) = tiny(), episode()
    logits_QN = recognizer.score_features(support, classes_S, query, None).logits_QN
    F.cross_entropy(logits_QN, torch.tensor([0, 1, 2, 0])).backward()
    reached = {n for n, p in recognizer.named_parameters() if p.grad is not None}
    learns = {n for n, p in recognizer.named_parameters() if p.requires_grad}
    assert reached == learns
    assert {name.split(".")[0] for name in learns} == {"prototypes"}


def test_one_feature_along_time_makes_no_pairs() -> None:
    with pytest.raises(MethodError, match="pairs need 2 or more"):
        tiny(frames=1)


def test_maps_are_not_in_the_space_of_text_though_as_wide() -> None:
    with pytest.raises(MethodError, match="not in the space of text"):
        tiny_recognizer("frozen", temporal=DenseConfig())
