"""Prototypes that text guides: MA-CLIP's TPCM (arXiv 2308.01532; model/papers/ma_clip.md).

Dimensions: S support clips, Q queries, B clips, N classes, T frames, L tokens, E feature width,
H heads, W width of a head.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.backbones.attention import join_heads, split_heads
from model.episode import ClassSet
from model.prototypes.mean import class_set, mean_by_class


class TextGuidedPrototypes(nn.Module):
    """One layer over the frames of a clip, whose keys and queries hold the text of its class.

    Queries go through the same layer without text.

    Args:
        features: E.
        heads: H.
        hidden: Width of the MLP.
        merge_before: Average the shots in front of the layer instead of behind it.
        keep_shots: Whether the `ClassSet` holds the shots too, for a matcher that reads them.
    """

    needs_text = True
    per_query, per_task, transductive = False, False, False

    def __init__(
        self,
        features: int,
        *,
        heads: int,
        hidden: int,
        merge_before: bool = False,
        keep_shots: bool = False,
    ) -> None:
        super().__init__()
        self.heads, self.merge_before, self.keep_shots = heads, merge_before, keep_shots
        self.norm = nn.LayerNorm(features)
        self.to_q = nn.Linear(features, features, bias=False)
        self.to_k = nn.Linear(features, features, bias=False)
        self.to_v = nn.Linear(features, features, bias=False)
        self.to_out = nn.Linear(features, features)
        self.mlp = nn.Sequential(
            nn.Linear(features, hidden), nn.GELU(), nn.Linear(hidden, features)
        )

    def is_initial(self) -> bool:
        """Tell that no start of it equals the backbone without it."""
        return False

    def forward(self, support_STE: Tensor, classes_S: Tensor, text_NE: Tensor | None) -> ClassSet:
        """Guide supports by the text of their class; without text, by their own frames alone."""
        text_SE = None if text_NE is None else text_NE[classes_S]
        shots_STE = None
        if self.keep_shots or not self.merge_before:
            shots_STE = self.guided(support_STE, text_SE)
        if self.merge_before or shots_STE is None:
            prototype_NTE = self.guided(mean_by_class(support_STE, classes_S), text_NE)
        else:
            prototype_NTE = mean_by_class(shots_STE, classes_S)
        return class_set(prototype_NTE, classes_S, shots_STE if self.keep_shots else None)

    def query(self, query_QTE: Tensor) -> Tensor:
        """Let the frames of each query attend to each other."""
        return self.guided(query_QTE, None)

    def guided(self, frames_BTE: Tensor, text_BE: Tensor | None) -> Tensor:
        """Run the layer on clips, each by itself.

        Args:
            frames_BTE: Features of their frames.
            text_BE: Text of their classes, or None for queries.

        Returns:
            guided_BTE.
        """
        asking_BTE = asked_BLE = frames_BTE
        if text_BE is not None:
            text_B1E = text_BE[:, None].to(frames_BTE.dtype)
            asking_BTE = frames_BTE + text_B1E
            asked_BLE = torch.cat([text_B1E, frames_BTE], dim=1)
        normed_BLE = self.norm(asked_BLE)
        attended_BHTW = F.scaled_dot_product_attention(
            split_heads(self.to_q(self.norm(asking_BTE)), self.heads),
            split_heads(self.to_k(normed_BLE), self.heads),
            split_heads(self.to_v(normed_BLE), self.heads),
        )
        out_BTE = self.to_out(join_heads(attended_BHTW)) + asking_BTE
        return out_BTE + self.mlp(out_BTE)
