"""Bottlenecks in the stream of text blocks (M2-CLIP; model/papers/m2clip.md).

Dimensions: N classes, A texts of a class, L text tokens, D width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.backbones.attention import attention
from model.slots import TransformerBlock


class TextAdapter(nn.Module):
    """z + up(gelu(down(z))). Its start is not the identity: it moves a frozen tower.

    Args:
        width: Token width D.
        ratio: Width of the bottleneck as a fraction of D.
    """

    def __init__(self, width: int, ratio: float) -> None:
        super().__init__()
        hidden = int(width * ratio)
        self.down = nn.Linear(width, hidden)
        self.up = nn.Linear(hidden, width)
        nn.init.zeros_(self.down.bias)
        nn.init.zeros_(self.up.bias)

    def is_initial(self) -> bool:
        """Tell whether it is the identity."""
        return not torch.any(self.up.weight) and not torch.any(self.up.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """Adapt tokens [..., D]."""
        return tokens + self.up(F.gelu(self.down(tokens)))


class TextAdapterBlock(nn.Module):
    """A frozen text block with adapters in its stream: in front of the MLP, and of attention too.

    Args:
        block: The frozen block; its weights stay its tower's.
        width: Token width D.
        ratio: Width of the bottlenecks as a fraction of D.
        before_attention: Whether there is one in front of attention (`24x384`).
        at_evaluation: Whether the adapters work outside of training too.
    """

    def __init__(
        self,
        block: TransformerBlock,
        width: int,
        ratio: float,
        *,
        before_attention: bool,
        at_evaluation: bool,
    ) -> None:
        super().__init__()
        self.block = block
        self.at_evaluation = at_evaluation
        self.before_attention = TextAdapter(width, ratio) if before_attention else None
        self.before_mlp = TextAdapter(width, ratio)

    def is_initial(self) -> bool:
        """Tell whether it computes what the frozen block computes."""
        adapters = [one for one in (self.before_attention, self.before_mlp) if one is not None]
        return not self.at_evaluation or all(adapter.is_initial() for adapter in adapters)

    def forward(self, tokens_NALD: Tensor, mask_LL: Tensor) -> Tensor:
        """Run the block; no text sees another. Returns tokens_NALD."""
        works = self.training or self.at_evaluation
        if works and self.before_attention is not None:
            tokens_NALD = self.before_attention(tokens_NALD)
        normed_NLD = self.block.norm_attention(tokens_NALD).flatten(0, 1)
        update_NLD = attention(self.block, normed_NLD, mask_LL)
        tokens_NALD = tokens_NALD + update_NLD.unflatten(0, tokens_NALD.shape[:2])
        if works:
            tokens_NALD = self.before_mlp(tokens_NALD)
        return tokens_NALD + self.block.mlp(self.block.norm_mlp(tokens_NALD))
