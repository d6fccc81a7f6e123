"""A graph whose edges are learned: which nodes are of one class (EGNN; model/papers/gghm.md).

Source: EGNN (arXiv 1905.01436), with a norm over each node's own values in place of BatchNorm,
which would mix the episode.

Dimensions: G graphs, N classes, Q queries, V nodes, C width of a node, H hidden width; an edge has
two channels, alike and unlike.
"""

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn

SLOPE = 0.01  # of LeakyReLU
LEAST = 1e-6  # of an edge
Norm = Callable[[int], nn.Module]


class EdgeGraph(nn.Module):
    """Layers in which nodes gather from their neighbours by edges, and edges follow the nodes.

    Args:
        features: C.
        hidden: H.
        layers: How many.
        norm: Makes what normalises a width.
    """

    def __init__(
        self, features: int, hidden: int, layers: int, *, norm: Norm = nn.LayerNorm
    ) -> None:
        super().__init__()
        inputs = [features, *[hidden] * (layers - 1)]
        self.nodes = nn.ModuleList(steps([3 * width, 2 * hidden, hidden], norm) for width in inputs)
        self.edges = nn.ModuleList(
            nn.Sequential(
                steps([hidden, 2 * hidden, 2 * hidden, hidden, hidden], norm), nn.Linear(hidden, 1)
            )
            for _ in inputs
        )

    def forward(self, nodes_GVC: Tensor, edges_G2VV: Tensor) -> list[Tensor]:
        """Return the edges after each layer, each [G, 2, V, V]."""
        found = []
        for of_nodes, of_edges in zip(self.nodes, self.edges, strict=True):
            gathered = without_diagonal(edges_G2VV)
            gathered = gathered / gathered.sum(dim=-1, keepdim=True).clamp(min=1e-12)
            alike, unlike = (gathered[:, channel] @ nodes_GVC for channel in (0, 1))
            nodes_GVC = of_nodes(torch.cat([nodes_GVC, alike, unlike], dim=-1))
            apart_GVVH = (nodes_GVC[:, :, None] - nodes_GVC[:, None]).abs()
            edges_G2VV = followed(edges_G2VV, of_edges(apart_GVVH)[..., 0].sigmoid())
            found.append(edges_G2VV)
        return found


def steps(widths: list[int], norm: Norm) -> nn.Sequential:
    """Return linear maps without bias, each followed by a norm and LeakyReLU."""
    parts: list[nn.Module] = []
    for width, next_width in itertools.pairwise(widths):
        parts += [nn.Linear(width, next_width, bias=False), norm(next_width), nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*parts)


def followed(edges_G2VV: Tensor, alike_GVV: Tensor) -> Tensor:
    """Return edges that follow how alike their nodes are; each node keeps what it gave in all."""
    edges_G2VV = without_diagonal(edges_G2VV)
    total_G2V1 = edges_G2VV.sum(dim=-1, keepdim=True)
    weighed = torch.stack([alike_GVV, 1 - alike_GVV], dim=1) * edges_G2VV
    weighed = weighed / weighed.sum(dim=-1, keepdim=True).clamp(min=1e-12) * total_G2V1
    own = torch.zeros_like(weighed)
    own[:, 0] = torch.eye(weighed.shape[-1], device=weighed.device)
    weighed = weighed + own + LEAST
    return weighed / weighed.sum(dim=1, keepdim=True)


def without_diagonal(edges_G2VV: Tensor) -> Tensor:
    """Leave out the edges of nodes with themselves."""
    own = torch.eye(edges_G2VV.shape[-1], dtype=torch.bool, device=edges_G2VV.device)
    return edges_G2VV.masked_fill(own, 0)


def first_edges(classes: int, queries: int, like: Tensor) -> Tensor:
    """Return the edges [2, V, V] of one node a class and some queries, as a graph starts.

    Classes are unlike each other; nothing is known of a query.

    Args:
        classes: N nodes, which come first.
        queries: Q nodes.
        like: Says on which device.
    """
    known = torch.arange(classes + queries, device=like.device) < classes
    both_VV = known[:, None] & known[None, :]
    same_VV = torch.eye(classes + queries, dtype=torch.bool, device=like.device)
    alike_VV = torch.where(both_VV, same_VV.float(), torch.tensor(0.5, device=like.device))
    return torch.stack([alike_VV, 1 - alike_VV])
