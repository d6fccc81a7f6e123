"""A plain ViT with a class token, in timm's layout: its names, its start, its numbers.

It is Dosovitskiy et al.'s (arXiv 2010.11929), pre-norm, with biases, exact GELU and no dropout.
Adapters take its blocks apart as `TimmBlock` does.

Dimensions: B frames, C H W pixels, L tokens, D token width, P heads.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPS = 1e-6  # of norms, as timm's
START_STD, START_MOST = 0.02, 2.0  # of weights and places
TOKEN_STD = 1e-6  # of the class token
MLP_RATIO = 4


class PatchEmbed(nn.Module):
    """Patches to tokens.

    Args:
        size: Pixels of a side of a frame.
        patch: Of a patch.
        width: D.
    """

    def __init__(self, size: int, patch: int, width: int) -> None:
        super().__init__()
        side = size // patch
        self.img_size, self.patch_size, self.grid_size = (size, size), (patch, patch), (side, side)
        self.num_patches = side * side
        self.proj = nn.Conv2d(3, width, patch, patch)

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        """Return tokens_BLD, row by row."""
        embedded_BDHW: Tensor = self.proj(pixels_BCHW)
        return embedded_BDHW.flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Self-attention over tokens.

    Args:
        width: D.
        heads: P.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.num_heads = heads
        self.gate = None
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm, self.k_norm, self.norm = nn.Identity(), nn.Identity(), nn.Identity()
        self.proj = nn.Linear(width, width)

    def forward(self, tokens_BLD: Tensor) -> Tensor:
        """Return the update of each token."""
        qkv = self.qkv(tokens_BLD).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(*qkv.unbind(0))
        update_BLD: Tensor = self.proj(attended.transpose(1, 2).flatten(2))
        return update_BLD


class Mlp(nn.Module):
    """Two layers with GELU between.

    Args:
        width: D.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, MLP_RATIO * width)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(MLP_RATIO * width, width)

    def forward(self, tokens_BLD: Tensor) -> Tensor:
        """Return the update of each token."""
        update_BLD: Tensor = self.fc2(self.act(self.fc1(tokens_BLD)))
        return update_BLD


class VitBlock(nn.Module):
    """Attention and an MLP, each behind a norm.

    Args:
        width: D.
        heads: P.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, EPS)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, EPS)
        self.mlp = Mlp(width)
        self.ls1, self.ls2 = nn.Identity(), nn.Identity()  # scales that others have

    def forward(self, tokens_BLD: Tensor) -> Tensor:
        """Run the block."""
        tokens_BLD = tokens_BLD + self.attn(self.norm1(tokens_BLD))
        return tokens_BLD + self.mlp(self.norm2(tokens_BLD))


class Vit(nn.Module):
    """The network without a classifier, pooled by its class token.

    Args:
        size: Pixels of a side of a frame.
        patch: Of a patch.
        width: D.
        depth: Blocks.
        heads: Of each block.
    """

    num_classes, num_prefix_tokens, global_pool = 0, 1, "token"

    def __init__(self, *, size: int, patch: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.embed_dim = width
        self.patch_embed = PatchEmbed(size, patch, width)
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.pos_embed = nn.Parameter(torch.empty(1, self.patch_embed.num_patches + 1, width))
        self.norm_pre = nn.Identity()
        self.blocks = nn.Sequential(*(VitBlock(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, EPS)
        self.fc_norm = nn.Identity()
        _begin(self.pos_embed)
        nn.init.normal_(self.cls_token, std=TOKEN_STD)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                _begin(module.weight)
                nn.init.zeros_(module.bias)

    def _pos_embed(self, patches_BLD: Tensor) -> Tensor:
        """Prepend the class token, add places."""
        token_BLD = self.cls_token.expand(patches_BLD.shape[0], -1, -1)
        return torch.cat([token_BLD, patches_BLD], dim=1) + self.pos_embed

    def forward_head(self, normed_BLD: Tensor, *, pre_logits: bool = False) -> Tensor:  # noqa: ARG002
        """Return the class token; there is nothing behind it."""
        return normed_BLD[:, 0]

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        """Return features_BD."""
        tokens_BLD = self.blocks(self._pos_embed(self.patch_embed(pixels_BCHW)))
        return self.forward_head(self.norm(tokens_BLD))


@torch.no_grad()
def _begin(weight: Tensor) -> None:
    """Draw normal values, as timm does: by the inverse of their distribution."""
    weight.uniform_(-1, 1).erfinv_().mul_(START_STD * 2**0.5).clamp_(-START_MOST, START_MOST)
