"""Blocks of timm's EVA networks, DINOv3 among them: places are turned into queries and keys."""

from collections.abc import Sequence
from typing import Any

import torch
from timm.layers import apply_rot_embed_cat
from timm.models.eva import EvaAttention
from torch import Tensor, nn
from torch.nn import functional as F

from model.backbones.attention import Residual, join_heads, split_heads
from model.errors import BackboneError, MethodError


class EvaBlock(Residual):
    """View of a timm EVA block.

    Args:
        block: The block.
        rope: Gives the turn of each patch, the same for all blocks; None where places are added.
        grid: Patches of a frame, down and across.
    """

    def __init__(self, block: Any, rope: nn.Module | None, grid: Sequence[int]) -> None:  # noqa: ANN401
        attn = getattr(block, "attn", None)
        if not isinstance(attn, EvaAttention) or attn.gate is not None:
            raise BackboneError(
                f"The block {type(block).__name__} has no plain attention; choose a timm model "
                "such as vit_base_patch16_dinov3."
            )
        self.block = block
        self.rope: Any = rope
        self.grid = list(grid)

    def norm_attention(self, tokens_BLD: Tensor) -> Tensor:
        """Apply norm1."""
        return self.block.norm1(tokens_BLD)

    def heads(self, normed_BLD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Project with qkv, in one piece or three, normalised where the model does."""
        attn = self.block.attn
        if attn.qkv is None:
            parts = [attn.q_proj(normed_BLD), attn.k_proj(normed_BLD), attn.v_proj(normed_BLD)]
        else:
            parts = list(F.linear(normed_BLD, attn.qkv.weight, _bias(attn)).chunk(3, dim=-1))
        query, key, value = (split_heads(part, attn.num_heads) for part in parts)
        return attn.q_norm(query), attn.k_norm(key), value

    def placed(self, query_BHLE: Tensor, key_BHLE: Tensor) -> tuple[Tensor, Tensor]:
        """Turn the patches to their places; the tokens in front of them have none."""
        if self.rope is None:
            return query_BHLE, key_BHLE
        turns = self.rope.get_embed(self.grid)
        return self._turned(query_BHLE, turns), self._turned(key_BHLE, turns)

    def _turned(self, heads_BHLE: Tensor, turns: Tensor) -> Tensor:
        attn = self.block.attn
        front, patches = heads_BHLE.tensor_split([attn.num_prefix_tokens], dim=2)
        if patches.shape[2] != turns.shape[-2]:
            raise MethodError(
                f"This tower turns {turns.shape[-2]} patches to their places, and was given "
                f"{patches.shape[2]}; let training look at all patches (patches=1)."
            )
        turned = apply_rot_embed_cat(patches, turns, half=attn.rotate_half)
        return torch.cat([front, turned.type_as(front)], dim=2)

    def merge(self, attended_BHLE: Tensor) -> Tensor:
        """Project with proj."""
        attn = self.block.attn
        update = attn.proj(attn.norm(join_heads(attended_BHLE)))
        return update if self.block.gamma_1 is None else self.block.gamma_1 * update

    def norm_mlp(self, tokens_BLD: Tensor) -> Tensor:
        """Apply norm2."""
        return self.block.norm2(tokens_BLD)

    def mlp(self, normed_BLD: Tensor) -> Tensor:
        """Apply the MLP."""
        update = self.block.mlp(normed_BLD)
        return update if self.block.gamma_2 is None else self.block.gamma_2 * update


def _bias(attn: EvaAttention) -> Tensor | None:
    if attn.q_bias is None:
        return attn.qkv.bias
    return torch.cat([attn.q_bias, attn.k_bias, attn.v_bias])
