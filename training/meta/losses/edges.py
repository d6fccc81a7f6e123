"""The loss of a graph between the classes of an episode and its queries.

Dimensions: Q queries, N classes, G graphs, V nodes: the classes, then the queries of a graph.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from training.meta.losses.output import EpisodeOutput

BEFORE_LAST = 0.5  # weight of a layer that another one follows
MARGIN = 1e-6  # from 0 and 1, at which a logarithm ends


def graph_edges(output: EpisodeOutput) -> Tensor:
    """Return how wrong the edges are that touch a query, as a mean over layers: 0 or more.

    Source: EGNN and GgHM (model/papers/gghm.md, section 3).

    Returns:
        0 where the prototypes have no graph.
    """
    layers = output.edges()
    if not layers:
        return output.logits_QN.new_zeros(())
    alike_GVV, counts_GVV = wanted(output.wanted_Q, layers[0].shape[0], layers[0].shape[-1])
    weights = [BEFORE_LAST] * (len(layers) - 1) + [1.0]
    losses = [
        weight * edge_loss(edges_G2VV[:, 0].float(), alike_GVV, counts_GVV)
        for weight, edges_G2VV in zip(weights, layers, strict=True)
    ]
    return torch.stack(losses).mean()


def wanted(wanted_Q: Tensor, graphs: int, nodes: int) -> tuple[Tensor, Tensor]:
    """Return which nodes [G, V, V] are of one class, and which edges count.

    Args:
        wanted_Q: The right class of each query.
        graphs: One for each query, or one for all.
        nodes: V.
    """
    asked_GM = wanted_Q.view(graphs, -1)
    ways = nodes - asked_GM.shape[1]
    classes_GN = torch.arange(ways, device=wanted_Q.device).expand(graphs, -1)
    class_GV = torch.cat([classes_GN, asked_GM], dim=1)
    is_query_V = torch.arange(nodes, device=wanted_Q.device) >= ways
    own_VV = torch.eye(nodes, dtype=torch.bool, device=wanted_Q.device)
    touches_VV = (is_query_V[:, None] | is_query_V[None, :]) & ~own_VV
    return class_GV[:, :, None] == class_GV[:, None, :], touches_VV.expand(graphs, -1, -1)


def edge_loss(edges_GVV: Tensor, alike_GVV: Tensor, counts_GVV: Tensor) -> Tensor:
    """Return the mean cross-entropy of edges that should join, plus that of those that should not.

    Args:
        edges_GVV: How alike two nodes are, in [0, 1].
        alike_GVV: Whether they are of one class.
        counts_GVV: Which edges count.
    """
    chance_GVV = edges_GVV.clamp(MARGIN, 1 - MARGIN)
    each_GVV = F.binary_cross_entropy(chance_GVV, alike_GVV.float(), reduction="none")
    return each_GVV[counts_GVV & alike_GVV].mean() + each_GVV[counts_GVV & ~alike_GVV].mean()
