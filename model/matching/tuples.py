"""Frames and ordered pairs of frames, each to their nearest: GgHM's hybrid matching.

Source: GgHM (arXiv 2308.09346; model/papers/gghm.md, section 5); no code is public.

Dimensions: Q B clips, S support clips, N classes, T frames, P pairs of frames, E feature width.
"""

import itertools
from typing import Literal

import torch
from torch import Tensor, nn

from model.episode import ClassSet
from model.matching.frame_pairs import frame_distances
from model.matching.trx import PLACE_SCALE, sinusoids

Metric = Literal["cosine", "l2"]


class Tuples(nn.Module):
    """The negative mean distance to the nearest frame and the nearest pair, over a class's shots.

    Args:
        frames: T.
        features: E.
        tuple_share: Weight of the pairs' distance, 0 to 1; frames have the rest.
        metric: Of two frames or pairs: 1 - cosine, or the Euclidean distance over sqrt(E).
    """

    bounded, reads_shots = False, True
    per_task = True  # no class depends on another, but foreign shots would cost distances

    place_TE: Tensor

    def __init__(self, frames: int, features: int, tuple_share: float, metric: Metric) -> None:
        super().__init__()
        self.tuple_share = tuple_share
        self.metric: Metric = metric
        place_TE = PLACE_SCALE * sinusoids(frames, features)
        self.register_buffer("place_TE", place_TE, persistent=False)

    def is_initial(self) -> bool:
        """Tell that there is nothing to train."""
        return True

    def forward(self, query_QTE: Tensor, classes: ClassSet) -> Tensor:
        """Return video_QN."""
        query_QTE, shots_STE = query_QTE.float(), torch.cat(classes.shots).float()
        by_frame_QS = self.distance(query_QTE, shots_STE)
        by_tuple_QS = self.distance(self.pairs(query_QTE), self.pairs(shots_STE))
        distance_QS = self.tuple_share * by_tuple_QS + (1 - self.tuple_share) * by_frame_QS
        of_classes = distance_QS.split(list(classes.counts), dim=1)
        return -torch.stack([of_class.mean(dim=1) for of_class in of_classes], dim=1)

    def pairs(self, frames_BTE: Tensor) -> Tensor:
        """Join each frame with each later one, places added [B, P, 2E]."""
        placed_BTE = frames_BTE + self.place_TE
        chosen = torch.tensor(list(itertools.combinations(range(placed_BTE.shape[1]), 2)))
        return placed_BTE[:, chosen.to(placed_BTE.device)].flatten(2)

    def distance(self, query_QTE: Tensor, shots_STE: Tensor) -> Tensor:
        """Return the mean distance to the nearest, of both clips in sum [Q, S]."""
        if self.metric == "cosine":
            apart_QSTU = frame_distances(query_QTE, shots_STE)
        else:
            apart_QSTU = torch.cdist(
                query_QTE[:, None],
                shots_STE[None],
                compute_mode="donot_use_mm_for_euclid_dist",  # which is wrong near 0
            )
            apart_QSTU = apart_QSTU * self.place_TE.shape[1] ** -0.5
        return apart_QSTU.amin(dim=-1).mean(dim=-1) + apart_QSTU.amin(dim=-2).mean(dim=-1)
