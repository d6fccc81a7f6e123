"""timm's ViTs, DINOv3 and the image towers of SigLIP among them, and its ResNets.

All are without their classifier.

Dimensions: B frames, C H W pixels, L tokens, D token width, E feature width, H heads.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
from timm.models.eva import Eva
from timm.models.resnet import ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from model.backbones.attention import Residual, join_heads, split_heads
from model.backbones.eva import EvaBlock
from model.backbones.hub import HubFile
from model.backbones.maps.levels import PatchLevels
from model.backbones.maps.resnet import ResNetTower
from model.backbones.weights import load_exactly, read_tensors
from model.config.towers import TimmConfig
from model.errors import BackboneError
from model.slots import RGB, Block

# Classifiers of published files, of ViTs and of ResNets; towers have none.
CLASSIFIER = ("head.weight", "head.bias", "fc.weight", "fc.bias")


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
    """A timm ViT without its classifier; also the compact image tower.

    Pooled by its class token, its mean, or attention (SigLIP), as the model has it. Where open_clip
    puts a projection in the place of the classifier (EVA02, MobileCLIP), it is applied.
    """

    def __init__(self, vit: Any, mean: RGB, std: RGB) -> None:  # noqa: ANN401
        super().__init__()
        turned = isinstance(vit, Eva)
        if not isinstance(vit, VisionTransformer | Eva) or getattr(vit, "rope_mixed", False):
            raise BackboneError(
                f"The timm model {type(vit).__name__} is no plain ViT; choose one named vit_*."
            )
        self.model: Any = vit
        self.size = int(vit.patch_embed.img_size[0])
        self.mean, self.std = mean, std
        self.width = int(vit.embed_dim)
        self.features = int(vit.num_classes) or self.width
        self.prefix_tokens = int(vit.num_prefix_tokens)
        self.reads_class_token = vit.global_pool == "token"
        self.blocks: Sequence[Block] = tuple(
            EvaBlock(block, vit.rope, vit.patch_embed.grid_size) if turned else TimmBlock(block)
            for block in vit.blocks
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


def timm_file(config: TimmConfig) -> HubFile:
    """Say where the hub keeps a model's weights, as timm's registry has it.

    Raises:
        BackboneError: timm knows no weights of this name.
    """
    found = timm.get_pretrained_cfg(config.name)
    if found is None or not found.hf_hub_id:
        raise BackboneError(
            f"timm has no weights of {config.name!r}; check the name, or give a weights file."
        )
    return HubFile(found.hf_hub_id, found.hf_hub_filename or "model.safetensors")


def timm_tower(config: TimmConfig, weights: Path | None = None) -> TimmImageTower | ResNetTower:
    """Build a timm ViT or ResNet without its classifier.

    Args:
        config: Which.
        weights: File with its weights; None leaves it random.

    Raises:
        BackboneError: unknown name, a file that does not fit, neither a plain ViT nor a ResNet.
    """
    try:
        model = timm.create_model(config.name, pretrained=False, num_classes=0)
    except Exception as error:  # timm's own errors of names have no common class
        raise BackboneError(
            f"timm has no {config.name!r} here ({error}); check the name, or give a weights file."
        ) from error
    data = timm.data.resolve_model_data_config(model)
    known: tuple[RGB, RGB] = tuple(data["mean"]), tuple(data["std"])
    tower: TimmImageTower | ResNetTower
    if isinstance(model, ResNet):
        tower = ResNetTower(model.eval(), int(data["input_size"][1]), *known)
    else:
        tower = TimmImageTower(model.eval(), *known)
    if weights is not None:
        tensors = _translated(read_tensors(weights), model)
        load_exactly(model, tensors, weights, ignored=CLASSIFIER)
    return tower


def _translated(tensors: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Give the tensors of another publisher timm's names, as timm does it when it downloads."""
    library = sys.modules[type(model).__module__]
    translate = getattr(library, "checkpoint_filter_fn", None)  # ResNets have one publisher's names
    if translate is None or model.state_dict().keys() <= tensors.keys():
        return tensors
    return dict(translate(tensors, model))
