"""Prototypes whose frames attend to the text of their class (CLIP-FSAR; model/papers/clip_fsar.md).

Dimensions: S support clips, Q queries, B sequences, N classes, T frames, L tokens, E feature width,
H heads, W width of a head.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.backbones.attention import join_heads, split_heads
from model.episode import ClassSet
from model.prototypes.mean import class_set, mean_by_class


class Layer(nn.Module):
    """Attention and an MLP over the frames of a clip; there are no places.

    Args:
        features: E.
        heads: H.
        hidden: Width of the MLP, which has no LayerNorm in front of it.
        dropout: After attention.
        mlp_dropout: Twice in the MLP.
    """

    def __init__(
        self, features: int, *, heads: int, hidden: int, dropout: float, mlp_dropout: float
    ) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(features)
        self.to_q = nn.Linear(features, features, bias=False)
        self.to_k = nn.Linear(features, features, bias=False)
        self.to_v = nn.Linear(features, features, bias=False)
        self.to_out = nn.Linear(features, features)
        self.dropout = nn.Dropout(dropout)
        self.mlp = nn.Sequential(
            nn.Linear(features, hidden),
            nn.GELU(),
            nn.Dropout(mlp_dropout),
            nn.Linear(hidden, features),
            nn.Dropout(mlp_dropout),
        )

    def forward(self, tokens_BLE: Tensor) -> Tensor:
        """Let the tokens of each sequence attend to each other; returns tokens_BLE."""
        normed_BLE = self.norm(tokens_BLE)
        query, key, value = (
            split_heads(project(normed_BLE), self.heads)
            for project in (self.to_q, self.to_k, self.to_v)
        )
        attended_BHLW = F.scaled_dot_product_attention(query, key, value)
        tokens_BLE = tokens_BLE + self.dropout(self.to_out(join_heads(attended_BHLW)))
        return tokens_BLE + self.mlp(tokens_BLE)


class TextTokenPrototypes(nn.Module):
    """Each shot's frames and its class text through a transformer, then the mean over shots.

    Queries go through the same transformer without a text token.

    Args:
        layers: Of the transformer, the first one first.
        merge_before: Average the shots in front of the transformer instead of behind it.
        keep_shots: Whether the `ClassSet` holds the shots too, for a matcher that reads them.
    """

    needs_text = True
    per_query, per_task, transductive = False, False, False

    def __init__(
        self, layers: Sequence[Layer], *, merge_before: bool = False, keep_shots: bool = False
    ) -> None:
        super().__init__()
        self.transformer = nn.Sequential(*layers)
        self.merge_before, self.keep_shots = merge_before, keep_shots

    def is_initial(self) -> bool:
        """Tell that no start of it equals the backbone without it."""
        return False

    def forward(self, support_STE: Tensor, classes_S: Tensor, text_NE: Tensor | None) -> ClassSet:
        """Modulate supports by the text of their class; without text, by their own frames alone."""
        text_SE = None if text_NE is None else text_NE[classes_S]
        shots_STE = None
        if self.keep_shots or not self.merge_before:
            shots_STE = self._modulated(support_STE, text_SE)
        if self.merge_before or shots_STE is None:
            prototype_NTE = self._modulated(mean_by_class(support_STE, classes_S), text_NE)
        else:
            prototype_NTE = mean_by_class(shots_STE, classes_S)
        return class_set(prototype_NTE, classes_S, shots_STE if self.keep_shots else None)

    def query(self, query_QTE: Tensor) -> Tensor:
        """Let the frames of each query attend to each other."""
        return self.transformer(query_QTE)

    def _modulated(self, frames_BTE: Tensor, text_BE: Tensor | None) -> Tensor:
        if text_BE is None:
            return self.transformer(frames_BTE)
        tokens_BLE = torch.cat([frames_BTE, text_BE[:, None].to(frames_BTE.dtype)], dim=1)
        return self.transformer(tokens_BLE)[:, : frames_BTE.shape[1]]
