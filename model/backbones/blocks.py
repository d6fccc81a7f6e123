"""One protocol over the transformer blocks of open_clip and timm, so that adapters wrap either.

A view holds a frozen block and calls its parts; it is not a module and owns no weights, so a
tower's state dict keeps its library's own names.

Dimensions: B sequences, L tokens, R read tokens, D width, H heads, E width of a head.
"""

from typing import Any, Protocol

import torch
from timm.layers import Mlp
from torch import Tensor, nn
from torch.nn import functional as F

from model.errors import BackboneError
from model.folding import side_by_side


class FrozenBlock(Protocol):
    """The parts of a pre-norm transformer block that adapters reuse."""

    def norm_attention(self, tokens_BLD: Tensor) -> Tensor:
        """Apply the LayerNorm in front of attention."""

    def heads(self, normed_BLD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Project to queries, keys and values, each [B, H, L, E]."""

    def merge(self, attended_BHLE: Tensor) -> Tensor:
        """Project attended heads back to tokens [B, L, D]."""

    def projection(self) -> nn.Linear | None:
        """Return the linear map that `merge` is after joining heads; None where it is more."""

    def norm_mlp(self, tokens_BLD: Tensor) -> Tensor:
        """Apply the LayerNorm in front of the MLP."""

    def mlp(self, normed_BLD: Tensor) -> Tensor:
        """Apply the MLP."""

    def widen(self, beside: tuple[nn.Linear, nn.Linear], scale: float) -> bool:
        """Take two maps with GELU between them, and the scale of their sum, into the MLP.

        Tells whether that is possible: where the MLP's own activation is GELU, and its output is
        what its second map gives.
        """


def attention(
    block: FrozenBlock,
    normed_BLD: Tensor,
    mask: Tensor | None = None,
    *,
    reads: slice = slice(None),
) -> Tensor:
    """Run the block's self-attention over L.

    Args:
        block: The frozen block.
        normed_BLD: Tokens after `norm_attention`.
        mask: Broadcast to [B, H, R, L]; True may be attended to, or additive.
        reads: The R tokens whose update is wanted; they attend to all.

    Returns:
        update_BRD.
    """
    query, key, value = block.heads(normed_BLD)
    query = query[:, :, reads]
    return block.merge(attend(query, key, value, mask))


def attended(block: FrozenBlock, normed_BLD: Tensor) -> Tensor:
    """Run the block's self-attention over L up to its projection; returns attended_BHLE."""
    return attend(*block.heads(normed_BLD))


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


def forward(block: FrozenBlock, tokens_BLD: Tensor, mask: Tensor | None = None) -> Tensor:
    """Run the whole frozen block."""
    tokens_BLD = tokens_BLD + attention(block, block.norm_attention(tokens_BLD), mask)
    return tokens_BLD + block.mlp(block.norm_mlp(tokens_BLD))


def split_heads(tokens_BLD: Tensor, heads: int) -> Tensor:
    """Reshape [B, L, D] to [B, H, L, E]."""
    return tokens_BLD.unflatten(-1, (heads, -1)).transpose(1, 2)


def join_heads(attended_BHLE: Tensor) -> Tensor:
    """Reshape [B, H, L, E] to [B, L, D]."""
    return attended_BHLE.transpose(1, 2).flatten(2)


class ClipBlock:
    """View of an open_clip residual attention block."""

    def __init__(self, block: Any) -> None:  # noqa: ANN401  open_clip ships no types
        if not isinstance(getattr(block, "attn", None), torch.nn.MultiheadAttention):
            raise BackboneError(
                f"The block {type(block).__name__} has no plain multi-head attention; "
                "choose an open_clip ViT with standard attention."
            )
        self.block = block

    def norm_attention(self, tokens_BLD: Tensor) -> Tensor:
        """Apply ln_1."""
        return self.block.ln_1(tokens_BLD)

    def heads(self, normed_BLD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Project with in_proj."""
        attn = self.block.attn
        qkv = F.linear(normed_BLD, attn.in_proj_weight, attn.in_proj_bias).chunk(3, dim=-1)
        query, key, value = (split_heads(part, attn.num_heads) for part in qkv)
        return query, key, value

    def merge(self, attended_BHLE: Tensor) -> Tensor:
        """Project with out_proj."""
        return self.block.ls_1(self.block.attn.out_proj(join_heads(attended_BHLE)))

    def projection(self) -> nn.Linear | None:
        """Return out_proj where no layer scale follows."""
        return self.block.attn.out_proj if is_identity(self.block.ls_1) else None

    def norm_mlp(self, tokens_BLD: Tensor) -> Tensor:
        """Apply ln_2."""
        return self.block.ln_2(tokens_BLD)

    def mlp(self, normed_BLD: Tensor) -> Tensor:
        """Apply the MLP."""
        return self.block.ls_2(self.block.mlp(normed_BLD))

    def widen(self, beside: tuple[nn.Linear, nn.Linear], scale: float) -> bool:
        """Widen c_fc and c_proj; OpenAI's QuickGELU is another activation."""
        mlp = self.block.mlp
        fits = is_identity(self.block.ls_2) and is_gelu(mlp.gelu)
        if fits:
            mlp.c_fc, mlp.c_proj = side_by_side((mlp.c_fc, mlp.c_proj), beside, scale)
        return fits


class TimmBlock:
    """View of a timm ViT block."""

    def __init__(self, block: Any) -> None:  # noqa: ANN401  timm's blocks are duck-typed
        attn = getattr(block, "attn", None)
        plain = all(hasattr(attn, part) for part in ("qkv", "q_norm", "k_norm", "proj"))
        if not plain or getattr(attn, "gate", None) is not None or not hasattr(block, "ls1"):
            raise BackboneError(
                f"The block {type(block).__name__} is no plain ViT block; "
                "choose a timm model of the vit_* family."
            )
        self.block = block

    def norm_attention(self, tokens_BLD: Tensor) -> Tensor:
        """Apply norm1."""
        return self.block.norm1(tokens_BLD)

    def heads(self, normed_BLD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Project with qkv, normalised where the model does."""
        attn = self.block.attn
        qkv = attn.qkv(normed_BLD).chunk(3, dim=-1)
        query, key, value = (split_heads(part, attn.num_heads) for part in qkv)
        return attn.q_norm(query), attn.k_norm(key), value

    def merge(self, attended_BHLE: Tensor) -> Tensor:
        """Project with proj."""
        attn = self.block.attn
        return self.block.ls1(attn.proj(attn.norm(join_heads(attended_BHLE))))

    def projection(self) -> nn.Linear | None:
        """Return proj where neither a norm nor a layer scale is around it."""
        attn = self.block.attn
        alone = is_identity(attn.norm) and is_identity(self.block.ls1)
        return attn.proj if alone else None

    def norm_mlp(self, tokens_BLD: Tensor) -> Tensor:
        """Apply norm2."""
        return self.block.norm2(tokens_BLD)

    def mlp(self, normed_BLD: Tensor) -> Tensor:
        """Apply the MLP."""
        return self.block.ls2(self.block.mlp(normed_BLD))

    def widen(self, beside: tuple[nn.Linear, nn.Linear], scale: float) -> bool:
        """Widen fc1 and fc2 of a plain MLP."""
        mlp = self.block.mlp
        plain = isinstance(mlp, Mlp) and is_identity(mlp.norm) and is_gelu(mlp.act)
        fits = plain and is_identity(self.block.ls2)
        if fits:
            mlp.fc1, mlp.fc2 = side_by_side((mlp.fc1, mlp.fc2), beside, scale)
        return fits


def is_identity(module: nn.Module) -> bool:
    """Tell whether a module does nothing."""
    return isinstance(module, nn.Identity)


def is_gelu(activation: nn.Module) -> bool:
    """Tell whether an activation is the exact GELU."""
    return type(activation) is nn.GELU and activation.approximate == "none"
