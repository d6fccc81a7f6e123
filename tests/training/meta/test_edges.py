"""The loss of GgHM's graph: by hand, and in an episode."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch

from model.config.matching import TupleMatcher
from model.config.prototypes import GraphPrototypes
from model.methods import METHODS
from model.prototypes import graph
from tests.training.learners import RECIPE, tiny_learner
from training.meta.losses.edges import edge_loss, graph_edges, wanted
from training.meta.losses.output import EpisodeOutput

GRAPH = {
    "prototypes": GraphPrototypes(layers=2, hidden=8),
    "matcher": TupleMatcher(),
    "fusion": "video",
}
OUTPUT = EpisodeOutput(
    logits_QN=torch.zeros(2, 3),
    again_QN=torch.zeros(0, 3),
    video_QN=torch.zeros(2, 3),
    wanted_Q=torch.tensor([2, 0]),
    features_BTE=torch.zeros(5, 8, 4),
    classes_B=(0, 1, 2, 2, 0),
    base_B=torch.tensor([0, 1, 2, 2, 0]),
    text_NAE=None,
    stages=(),
    described=False,
    base_text_CAE=lambda: None,
    text_scale=1.0,
    edges=lambda: (),
    config=METHODS["frozen"],
    temperature=1.0,
    smoothing=0.0,
    frozen_BTE=lambda: torch.zeros(0),
    start_BTE=lambda: torch.zeros(0),
)


def test_only_edges_that_touch_a_query_count_and_join_it_to_its_class() -> None:
    alike, counts = wanted(torch.tensor([2, 0]), 2, 4)  # a graph each: three classes, one query
    assert counts[0].nonzero().tolist() == [[0, 3], [1, 3], [2, 3], [3, 0], [3, 1], [3, 2]]
    assert (alike & counts)[0].nonzero().tolist() == [[2, 3], [3, 2]]
    assert (alike & counts)[1].nonzero().tolist() == [[0, 3], [3, 0]]


def test_in_a_joint_graph_queries_of_one_class_are_joined_too() -> None:
    alike, counts = wanted(torch.tensor([1, 0, 1]), 1, 5)  # two classes, three queries
    joined = {tuple(pair) for pair in (alike & counts)[0].nonzero().tolist()}
    assert {(2, 4), (4, 2)} <= joined
    assert joined == {(1, 2), (2, 1), (0, 3), (3, 0), (1, 4), (4, 1), (2, 4), (4, 2)}
    assert not counts[0, 0, 1]


def test_the_loss_of_a_layer_is_that_of_joined_and_of_other_edges_by_hand() -> None:
    alike, counts = wanted(torch.tensor([0]), 1, 3)
    edges = torch.tensor([[[0.9, 0.9, 0.8], [0.9, 0.9, 0.4], [0.6, 0.2, 0.9]]])
    want = -(math.log(0.8) + math.log(0.6)) / 2 - (math.log(0.6) + math.log(0.8)) / 2
    assert edge_loss(edges, alike, counts).item() == pytest.approx(want, abs=1e-6)


def test_layers_weigh_a_half_and_the_last_one_whole() -> None:
    even = torch.full((2, 2, 4, 4), 0.5)
    made = replace(OUTPUT, edges=lambda: (even, even, even))
    want = 2 * math.log(2) * (0.5 + 0.5 + 1) / 3
    assert graph_edges(made).item() == pytest.approx(want, abs=1e-6)


def test_an_edge_that_is_surely_wrong_costs_a_finite_loss() -> None:
    sure = torch.zeros(2, 2, 4, 4)
    assert math.isfinite(graph_edges(replace(OUTPUT, edges=lambda: (sure,))))


def test_prototypes_without_a_graph_have_no_such_loss() -> None:
    assert graph_edges(OUTPUT) == 0


def test_the_edge_loss_reaches_the_graph_of_an_episode_and_nothing_else() -> None:
    recipe = replace(RECIPE, weights={"query": 0.0, "graph_edges": 1.0})
    learner = tiny_learner(recipe, preset="frozen", query_context="none", **GRAPH)
    output = learner.passes.output(0)
    nodes = len(set(output.classes_B)) + 1
    shapes = [tuple(edges.shape) for edges in output.edges()]
    assert shapes == [(len(output.wanted_Q), 2, nodes, nodes)] * 2
    learner.loss(0).backward()
    named = dict(learner.recognizer.named_parameters())
    reached = {name for name, parameter in named.items() if parameter.grad is not None}
    assert reached == {name for name in named if ".graph." in name}


def test_a_graph_learns_which_class_a_query_is_of() -> None:
    torch.manual_seed(0)
    prototypes = graph.GraphPrototypes(8, hidden=16, layers=2, ratio=1.0)
    optimizer = torch.optim.Adam(prototypes.graph.parameters(), lr=1e-2)
    losses = []
    for _ in range(120):
        support = torch.randn(3, 1, 8)  # other classes each time
        query = support[[2, 0]] + 0.1 * torch.randn(2, 1, 8)
        classes = prototypes(support, torch.arange(3), None)
        loss = graph_edges(replace(OUTPUT, edges=partial(prototypes.edges, query, classes)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-30:]) / 30 < 0.85 * sum(losses[:10]) / 10
