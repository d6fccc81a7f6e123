"""Attention of a frozen transformer block, in the steps that adapters put something between.

Dimensions: B sequences, L tokens, R read tokens, D width, H heads, E width of a head.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from model.slots import TransformerBlock


def attention(
    block: TransformerBlock,
    normed_BLD: Tensor,
    mask: Tensor | None = None,
    *,
    reads: slice = slice(None),
    in_space: bool = True,
) -> Tensor:
    """Run the block's self-attention over L.

    Args:
        block: The frozen block.
        normed_BLD: Tokens after `norm_attention`.
        mask: Broadcast to [B, H, R, L]; True may be attended to, or additive.
        reads: The R tokens whose update is wanted; they attend to all.
        in_space: Whether L are the tokens of a frame or a text, each at its own place; False where
            all stand at one place, as a token in the frames of a clip does.

    Returns:
        update_BRD.
    """
    query, key, value = block.heads(normed_BLD)
    if in_space:
        query, key = block.placed(query, key)
    query = query[:, :, reads]
    return block.merge(attend(query, key, value, mask))


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attend, each [B, H, L, E]; mask as in `attention`.

    Training in bfloat16 on a processor goes through two plain products: backwards, the fused
    kernel is 2 (197 tokens) to 10 times (10 clips) slower there (torch 2.14).
    """
    slow = query.device.type == "cpu" and query.dtype == torch.bfloat16
    if not (slow and torch.is_grad_enabled()):
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    with torch.autocast("cpu", enabled=False):
        logits_BHLL = query @ (key.transpose(-1, -2) * query.shape[-1] ** -0.5)
        if mask is not None:
            logits_BHLL = logits_BHLL + additive(mask, query.dtype)
        return logits_BHLL.softmax(dim=-1) @ value


def additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a mask as what it adds to logits."""
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, -torch.inf)


def forward(block: TransformerBlock, tokens_BLD: Tensor, mask: Tensor | None = None) -> Tensor:
    """Run the whole frozen block."""
    tokens_BLD = tokens_BLD + attention(block, block.norm_attention(tokens_BLD), mask)
    return tokens_BLD + block.mlp(block.norm_mlp(tokens_BLD))


class Residual:
    """A transformer block that runs whole by its own steps."""

    def run(self: TransformerBlock, tokens_BLD: Tensor, mask: Tensor | None = None, /) -> Tensor:
        """Run it."""
        return forward(self, tokens_BLD, mask)


def split_heads(tokens_BLD: Tensor, heads: int) -> Tensor:
    """Reshape [B, L, D] to [B, H, L, E]."""
    return tokens_BLD.unflatten(-1, (heads, -1)).transpose(1, 2)


def join_heads(attended_BHLE: Tensor) -> Tensor:
    """Reshape [B, H, L, E] to [B, L, D]."""
    return attended_BHLE.transpose(1, 2).flatten(2)
