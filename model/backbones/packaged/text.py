"""A causal text transformer in open_clip's layout: its names, its start, its numbers.

It is CLIP's (Radford et al., arXiv 2103.00020, section 2.4), pre-norm, with the exact GELU. It runs
as a `ClipTextTower`, block by block.

Dimensions: L tokens, D token width, E feature width.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TOKEN_STD, PLACE_STD = 0.02, 0.01  # at the start
MLP_RATIO = 4


class LayerNorm(nn.LayerNorm):
    """A norm whose output has the precision of its input, under autocast too."""

    def forward(self, tokens_BLD: Tensor) -> Tensor:
        """Normalise."""
        normed = F.layer_norm(
            tokens_BLD, self.normalized_shape, self.weight, self.bias, self.eps
        )  # fmt: skip
        return normed.to(tokens_BLD.dtype)


class TextBlock(nn.Module):
    """Attention and an MLP, each behind a norm; run by `ClipBlock`.

    Args:
        width: D.
        heads: Of the attention.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1 = LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ls_1 = nn.Identity()  # a scale that others have
        self.ln_2 = LayerNorm(width)
        layers = OrderedDict[str, nn.Module](
            c_fc=nn.Linear(width, MLP_RATIO * width),
            gelu=nn.GELU(),
            c_proj=nn.Linear(MLP_RATIO * width, width),
        )
        self.mlp = nn.Sequential(layers)
        self.ls_2 = nn.Identity()


class Blocks(nn.Module):
    """The blocks, under the name that they have in files."""

    def __init__(self, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(TextBlock(width, heads) for _ in range(layers))


class TextNetwork(nn.Module):
    """The network at its start, pooled at the token with the largest id.

    Args:
        context: L.
        vocabulary: Number of ids.
        width: D.
        heads: Of each block.
        layers: Blocks.
        features: E.
    """

    attn_mask: Tensor
    pool_type = "argmax"

    def __init__(
        self, *, context: int, vocabulary: int, width: int, heads: int, layers: int, features: int
    ) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(vocabulary, width)
        self.positional_embedding = nn.Parameter(torch.empty(context, width))
        self.transformer = Blocks(width, layers, heads)
        self.ln_final = LayerNorm(width)
        hidden = torch.full((context, context), -torch.inf).triu_(1)  # what comes later
        self.register_buffer("attn_mask", hidden, persistent=False)
        self.text_projection = nn.Parameter(torch.empty(width, features))
        self._begin(width**-0.5, layers)

    def _begin(self, std: float, layers: int) -> None:
        nn.init.normal_(self.token_embedding.weight, std=TOKEN_STD)
        nn.init.normal_(self.positional_embedding, std=PLACE_STD)
        towards_residual = std * (2 * layers) ** -0.5
        for block in self.transformer.resblocks:
            assert isinstance(block, TextBlock)
            nn.init.normal_(block.attn.in_proj_weight, std=std)
            nn.init.normal_(block.attn.out_proj.weight, std=towards_residual)
            nn.init.normal_(block.mlp.get_parameter("c_fc.weight"), std=std * 2**-0.5)
            nn.init.normal_(block.mlp.get_parameter("c_proj.weight"), std=towards_residual)
        nn.init.normal_(self.text_projection, std=std)
