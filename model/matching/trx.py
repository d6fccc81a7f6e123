"""TRX: each ordered tuple of query frames against all tuples of a class's shots, by attention.

Source: TRX (model/papers/matching.md), of one head, without the LayerNorm of values that the
released code makes and never uses. Frames are standardised first (LayerNorm without weights): the
distances are squared and unscaled, and frozen CLIP and ViT features are far from unit scale, at
which the place encoding is a tenth of a feature.

Dimensions: Q B clips, S support clips, K shots of a class, N classes, T frames, E feature width,
P tuples, C frames of a tuple, W width of keys and values.
"""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.episode import ClassSet

PLACE_SCALE = 0.1


class Trx(nn.Module):
    """The mean over cardinalities of the negative distance to what attention makes of the shots.

    Args:
        features: E.
        frames: T.
        cardinalities: Frames of a tuple, of each kind of tuple; 1 to T.
        width: W.
        dropout: Of frames with their places added, in training.
        standardised: Whether frames first go through a LayerNorm without weights; the release
            takes them as they are.
    """

    bounded, reads_shots = False, True
    per_task = True  # no class depends on another, but foreign shots would cost attention

    place_TE: Tensor

    def __init__(
        self,
        features: int,
        frames: int,
        *,
        cardinalities: Sequence[int] = (2, 3),
        width: int = 1152,
        dropout: float = 0.1,
        standardised: bool = True,
    ) -> None:
        super().__init__()
        self.standardised = standardised
        self.tuples = nn.ModuleList(
            TupleAttention(features, frames, cardinality, width) for cardinality in cardinalities
        )
        self.dropout = nn.Dropout(dropout)
        place_TE = PLACE_SCALE * sinusoids(frames, features)
        self.register_buffer("place_TE", place_TE, persistent=False)

    def is_initial(self) -> bool:
        """Tell that no start of it equals the backbone without it."""
        return False

    def forward(self, query_QTE: Tensor, classes: ClassSet) -> Tensor:
        """Compare queries with all shots of each class.

        Returns:
            video_QN, the negative distance.
        """
        counts = [len(shots_KTE) for shots_KTE in classes.shots]
        support_STE = self._placed(torch.cat(list(classes.shots)))
        query_QTE = self._placed(query_QTE)
        distances = [attend(query_QTE, support_STE, counts) for attend in self.tuples]
        return -torch.stack(distances).mean(dim=0)

    def _placed(self, frames_BTE: Tensor) -> Tensor:
        if self.standardised:
            frames_BTE = F.layer_norm(frames_BTE, frames_BTE.shape[-1:])
        return self.dropout(frames_BTE + self.place_TE)


class TupleAttention(nn.Module):
    """Attention from the tuples of a query to all tuples of all shots of a class.

    Args:
        features: E.
        frames: T.
        cardinality: C.
        width: W.
    """

    chosen_PTC: Tensor

    def __init__(self, features: int, frames: int, cardinality: int, width: int) -> None:
        super().__init__()
        self.key = nn.Linear(cardinality * features, width)
        self.value = nn.Linear(cardinality * features, width)
        self.norm = nn.LayerNorm(width)
        tuples_PC = torch.tensor(list(itertools.combinations(range(frames), cardinality)))
        chosen_PTC = F.one_hot(tuples_PC, frames).transpose(1, 2).float()
        self.register_buffer("chosen_PTC", chosen_PTC, persistent=False)

    def forward(self, query_QTE: Tensor, support_STE: Tensor, counts: Sequence[int]) -> Tensor:
        """Return distance_QN: the mean over tuples of squared distances of values.

        Args:
            query_QTE: Frames of the queries, places added.
            support_STE: Frames of the supports, sorted by class.
            counts: Shots of each class.
        """
        key_QPW, value_QPW = self._keys_and_values(query_QTE)
        key_SPW, value_SPW = self._keys_and_values(support_STE)
        distances = []
        for key_KPW, value_KPW in zip(key_SPW.split(counts), value_SPW.split(counts), strict=True):
            made = F.scaled_dot_product_attention(
                key_QPW.flatten(0, 1)[None],
                key_KPW.flatten(0, 1)[None],
                value_KPW.flatten(0, 1)[None],
            )
            off_QPW = (value_QPW.flatten(0, 1) - made[0]).unflatten(0, value_QPW.shape[:2])
            distances.append(off_QPW.float().square().sum(dim=-1).mean(dim=-1))
        return torch.stack(distances, dim=-1)

    def _keys_and_values(self, frames_BTE: Tensor) -> tuple[Tensor, Tensor]:
        return self.norm(self._project(self.key, frames_BTE)), self._project(self.value, frames_BTE)

    def _project(self, linear: nn.Linear, frames_BTE: Tensor) -> Tensor:
        """Apply `linear` to the joined frames of every tuple [B, P, W].

        Each frame is projected once for each place in a tuple, and tuples sum what they hold:
        T * C products with a frame instead of P * C.
        """
        weight_WCE = linear.weight.unflatten(1, (-1, frames_BTE.shape[-1]))
        part_BTCW = torch.einsum("bte,wce->btcw", frames_BTE, weight_WCE)
        return torch.einsum("ptc,btcw->bpw", self.chosen_PTC, part_BTCW) + linear.bias


def sinusoids(frames: int, features: int) -> Tensor:
    """Return the sine and cosine encoding of frame places [T, E] (Vaswani et al., 2017)."""
    frequency = torch.exp(torch.arange(0, features, 2) * (-math.log(10_000) / features))
    angle = torch.arange(frames)[:, None] * frequency
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[:, :features]
