"""timm's plain ViTs, without their classifier.

Dimensions: B frames, C H W pixels, L tokens, D token width, E feature width, H heads.
"""

from collections.abc import Sequence
from typing import Any

import timm
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from model.backbones.attention import join_heads, split_heads
from model.config import TimmConfig
from model.errors import BackboneError
from model.slots import RGB, TransformerBlock


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

    def norm_mlp(self, tokens_BLD: Tensor) -> Tensor:
        """Apply norm2."""
        return self.block.norm2(tokens_BLD)

    def mlp(self, normed_BLD: Tensor) -> Tensor:
        """Apply the MLP."""
        return self.block.ls2(self.block.mlp(normed_BLD))


class TimmImageTower(nn.Module):
    """A timm ViT without its classifier; also the compact image tower."""

    def __init__(self, vit: Any, mean: RGB, std: RGB) -> None:  # noqa: ANN401
        super().__init__()
        if not isinstance(vit, VisionTransformer):
            raise BackboneError(
                f"The timm model {type(vit).__name__} is no plain ViT; choose one named vit_*."
            )
        self.model: Any = vit
        self.size = int(vit.patch_embed.img_size[0])
        self.mean, self.std = mean, std
        self.width = self.features = int(vit.embed_dim)
        self.prefix_tokens = int(vit.num_prefix_tokens)
        self.reads_class_token = vit.global_pool == "token"
        self.blocks: Sequence[TransformerBlock] = tuple(TimmBlock(block) for block in vit.blocks)

    def patches(self, pixels_BCHW: Tensor) -> Tensor:
        """Embed patches, prepend tokens, add places."""
        return self.model._pos_embed(self.model.patch_embed(pixels_BCHW))

    def norm(self, tokens_BLD: Tensor) -> Tensor:
        """Apply norm_pre."""
        return self.model.norm_pre(tokens_BLD)

    def head(self, tokens_BLD: Tensor) -> Tensor:
        """Normalise and pool as the model does, without its classifier."""
        return self.model.forward_head(self.model.norm(tokens_BLD), pre_logits=True)


def timm_tower(config: TimmConfig) -> TimmImageTower:
    """Load a timm ViT without its classifier.

    Raises:
        BackboneError: unknown name, weights that cannot be had, or not a plain ViT.
    """
    try:
        vit = timm.create_model(config.name, pretrained=config.pretrained, num_classes=0)
    except Exception as error:  # hub, disk and name errors have no common class
        raise BackboneError(
            f"timm has no {config.name!r} here ({error}); check the name, or give a weights file."
        ) from error
    data = timm.data.resolve_model_data_config(vit)
    return TimmImageTower(vit.eval(), tuple(data["mean"]), tuple(data["std"]))
