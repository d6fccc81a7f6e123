"""ViTs in timm's layout as towers.

Dimensions: B frames, C H W pixels, L tokens, D token width, E feature width, H heads.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from model.backbones.attention import Residual, join_heads, split_heads
from model.backbones.maps.levels import PatchLevels
from model.errors import BackboneError
from model.slots import RGB, Block


class TimmBlock(Residual):
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

    def placed(self, query_BHLE: Tensor, key_BHLE: Tensor) -> tuple[Tensor, Tensor]:
        """Leave them: places were added to the tokens."""
        return query_BHLE, key_BHLE

    def merge(self, attended_BHLE: Tensor) -> Tensor:
        """Project with proj."""
        attn = self.block.attn
        return self.block.ls1(attn.proj(attn.norm(join_heads(attended_BHLE))))

    def norm_mlp(self, tokens_BLD: Tensor) -> Tensor:
        """Apply norm2."""
        return self.block.norm2(tokens_BLD)

    def mlp(self, normed_BLD: Tensor) -> Tensor:
        """Apply the MLP."""
        return self.block.ls2(self.block.mlp(normed_BLD))


class TimmImageTower(PatchLevels, nn.Module):
    """A ViT in timm's layout without its classifier; also the compact image tower.

    Pooled by its class token, its mean, or attention (SigLIP), as the model has it. Where open_clip
    puts a projection in the place of the classifier (EVA02, MobileCLIP), it is applied.

    Args:
        vit: The network.
        mean: Of RGB in [0, 1].
        std: Likewise.
        blocks: Views of its blocks; None where they are plain ones.
    """

    def __init__(
        self,
        vit: Any,  # noqa: ANN401
        mean: RGB,
        std: RGB,
        blocks: Sequence[Block] | None = None,
    ) -> None:
        super().__init__()
        self.model: Any = vit
        self.size = int(vit.patch_embed.img_size[0])
        self.mean, self.std = mean, std
        self.width = int(vit.embed_dim)
        self.features = int(vit.num_classes) or self.width
        self.prefix_tokens = int(vit.num_prefix_tokens)
        self.reads_class_token = vit.global_pool == "token"
        self.blocks: Sequence[Block] = (
            tuple(TimmBlock(block) for block in vit.blocks) if blocks is None else blocks
        )
        norm = [
            name for name in ("norm", "fc_norm") if isinstance(getattr(vit, name), nn.LayerNorm)
        ]
        self.parts: Mapping[str, Sequence[str]] = {
            "class_token": ("cls_token",) if vit.cls_token is not None else (),
            "last_norm": tuple(f"{name}.{kind}" for name in norm for kind in ("weight", "bias")),
        }

    def patches(self, pixels_BCHW: Tensor) -> Tensor:
        """Embed patches, prepend tokens, add places."""
        tokens = self.model._pos_embed(self.model.patch_embed(pixels_BCHW))
        return tokens[0] if isinstance(tokens, tuple) else tokens  # EVA gives the turns, too

    def norm(self, tokens_BLD: Tensor) -> Tensor:
        """Apply norm_pre."""
        return self.model.norm_pre(tokens_BLD)

    def head(self, tokens_BLD: Tensor) -> Tensor:
        """Normalise, pool and project as the model does."""
        return self.model.forward_head(self.model.norm(tokens_BLD))

    def pooled(self, tokens_BLD: Tensor) -> Tensor:
        """Normalise and pool as the model does."""
        return self.model.forward_head(self.model.norm(tokens_BLD), pre_logits=True)
