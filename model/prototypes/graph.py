"""Prototypes that a graph guides: GgHM's GgPC (arXiv 2308.09346; model/papers/gghm.md).

From the paper's figures and notes: no code is public, and every number is our choice.

Dimensions: S support clips, Q queries, N classes, K shots, V = N + 1 nodes of a query's graph,
T frames, E feature width.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.episode import ClassSet
from model.prototypes.edge_graph import EdgeGraph, first_edges
from model.prototypes.mean import class_set, mean_by_class


class GraphPrototypes(nn.Module):
    """Frames of shots and of a query get what a graph over the classes and the query says.

    Args:
        features: E.
        hidden: Width of the graph.
        layers: Of the graph.
        ratio: Hidden width of the MLP as a fraction of E.
        joint: One graph over the classes and all queries, as published: queries see each other.
    """

    needs_text, per_query, per_task = False, True, True

    def __init__(
        self, features: int, *, hidden: int, layers: int, ratio: float, joint: bool = False
    ) -> None:
        super().__init__()
        self.transductive = joint
        self.graph = EdgeGraph(features, hidden, layers)
        self.embed = nn.Linear(features, features)
        self.norm = nn.LayerNorm(features)
        self.mlp = nn.Sequential(
            nn.Linear(features, int(ratio * features)),
            nn.GELU(),
            nn.Linear(int(ratio * features), features),
        )
        self.fuse_in = nn.Linear(2 * features, features)
        self.fuse_out = nn.Linear(features, features)
        nn.init.zeros_(self.fuse_out.weight)
        nn.init.zeros_(self.fuse_out.bias)

    def is_initial(self) -> bool:
        """Tell whether frames stay what they are, as before training."""
        return not (torch.any(self.fuse_out.weight) or torch.any(self.fuse_out.bias))

    def forward(self, support_STE: Tensor, classes_S: Tensor, text_NE: Tensor | None) -> ClassSet:  # noqa: ARG002
        """Keep the shots and the mean of each class, which the graph starts from."""
        return class_set(mean_by_class(support_STE, classes_S), classes_S, support_STE)

    def query(self, query_QTE: Tensor) -> Tensor:
        """Return query features as they are."""
        return query_QTE

    def meet(self, query_QTE: Tensor, classes: ClassSet) -> Iterator[tuple[Tensor, ClassSet]]:
        """Yield each query, and the classes as it meets them."""
        edges_Q2VV = self.selected(self.edges(query_QTE, classes)[-1], len(query_QTE))
        guided_QVE = self.guided(edges_Q2VV[:, 0], query_QTE, classes)
        shots_QSTE, task_QTE = self.of_task(guided_QVE, query_QTE, classes)
        for shots_STE, task_TE in zip(shots_QSTE, task_QTE, strict=True):
            shots = shots_STE.split(list(classes.counts))
            means_NTE = torch.stack([of_class.mean(dim=0) for of_class in shots])
            yield task_TE[None], replace(classes, prototype_NTE=means_NTE, shots=shots)

    def edges(self, query_QTE: Tensor, classes: ClassSet) -> list[Tensor]:
        """Return the edges after each layer: [Q, 2, V, V], or [1, 2, N + Q, N + Q] where joint."""
        class_NE, query_QE = pooled(classes.prototype_NTE), pooled(query_QTE)
        ways, queries = len(class_NE), len(query_QE)
        if self.transductive:
            nodes_GVE, asked = torch.cat([class_NE, query_QE])[None], queries
        else:
            nodes_GVE, asked = together(class_NE, query_QE), 1
        edges_2VV = first_edges(ways, asked, class_NE)
        return self.graph(nodes_GVE, edges_2VV.expand(len(nodes_GVE), -1, -1, -1))

    def selected(self, edges_G2VV: Tensor, queries: int) -> Tensor:
        """Cut the edges of the classes and one query out, for each query."""
        if not self.transductive:
            return edges_G2VV
        ways = edges_G2VV.shape[-1] - queries
        cut = []
        for query in range(ways, ways + queries):
            rows = torch.tensor([*range(ways), query], device=edges_G2VV.device)
            cut.append(edges_G2VV[0][:, rows[:, None], rows[None, :]])
        return torch.stack(cut)

    def guided(self, alike_QVV: Tensor, query_QTE: Tensor, classes: ClassSet) -> Tensor:
        """Mix the classes and the query of each graph as its edges say; returns guided_QVE."""
        nodes_QVE = together(pooled(classes.prototype_NTE), pooled(query_QTE))
        mixed_QVE = alike_QVV @ self.embed(nodes_QVE)
        return mixed_QVE + self.mlp(self.norm(mixed_QVE))

    def of_task(
        self, guided_QVE: Tensor, query_QTE: Tensor, classes: ClassSet
    ) -> tuple[Tensor, Tensor]:
        """Give frames what the graph says of their node.

        Returns:
            shots_QSTE of each query, sorted by class, and task_QTE.
        """
        width = query_QTE.shape[-1]
        of_frame, of_node = self.fuse_in.weight.split(width, dim=1)
        node_QVE = F.linear(guided_QVE, of_node, self.fuse_in.bias)  # once, not for each frame

        def fused(frames: Tensor, node: Tensor) -> Tensor:
            return frames + self.fuse_out(F.relu(F.linear(frames, of_frame) + node))

        counts = torch.tensor(classes.counts, device=query_QTE.device)
        node_QSE = node_QVE[:, :-1].repeat_interleave(counts, dim=1)
        shots_STE = torch.cat(classes.shots)
        return fused(shots_STE[None], node_QSE[:, :, None]), fused(query_QTE, node_QVE[:, -1:])


def pooled(frames_BTE: Tensor) -> Tensor:
    """Return the mean frame of each clip [B, E]."""
    return frames_BTE.mean(dim=1)


def together(class_NE: Tensor, query_QE: Tensor) -> Tensor:
    """Put the classes beside each query [Q, V, E], the query last."""
    return torch.cat([class_NE.expand(len(query_QE), -1, -1), query_QE[:, None]], dim=1)
