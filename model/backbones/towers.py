"""Frozen towers: open_clip's CLIPs, timm's ViTs and the packaged compact pair.

Each image tower offers `patches`, `norm`, `blocks`, `head`; each text tower `tokenize`, `embed`,
`blocks`, `mask`, `pool`. Adapters are put between by `model.encoder`.

Dimensions: B frames or texts, C H W pixels, L tokens, D token width, E feature width.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import open_clip
import timm
import torch
from open_clip.transformer import QuickGELU, TextTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from model.backbones.blocks import ClipBlock, FrozenBlock, TimmBlock, is_gelu
from model.backbones.patches import PatchProduct, foldable
from model.backbones.words import WordTokenizer
from model.config import CompactConfig, CompactTextConfig, OpenClipConfig, TimmConfig
from model.errors import BackboneError

RGB = tuple[float, float, float]
QUICK_GELU = 1.702  # its factor in front of the sigmoid


class ImageTower(Protocol):
    """A frozen image tower, in the parts that adapters need."""

    model: Any
    size: int  # pixels, square
    mean: RGB  # of RGB in [0, 1]
    std: RGB
    width: int  # D
    features: int  # E
    reads_class_token: bool  # whether `head` looks at the first token alone
    blocks: Sequence[FrozenBlock]

    def patches(self, pixels_BCHW: Tensor) -> Tensor:
        """Turn normalised pixels into tokens [B, L, D] with their places added."""

    def fold_pixels(self, mean: Tensor, std: Tensor) -> bool:
        """Make `patches` take uint8 pixels, where its projection can; tell whether it does."""

    def fold_activations(self) -> None:
        """Do what the MLPs do in fewer passes over memory, where weights can take a part of it."""

    def norm(self, tokens_BLD: Tensor) -> Tensor:
        """Apply what stands between places and the first block."""

    def head(self, tokens_BLD: Tensor) -> Tensor:
        """Turn the last block's tokens into one feature [B, E] a frame."""


class TextTower(Protocol):
    """A frozen causal text tower, in the parts that adapters need."""

    model: Any
    width: int
    features: int
    blocks: Sequence[FrozenBlock]

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Turn texts into token ids [B, L]."""

    def unknown_words(self, text: str) -> tuple[str, ...]:
        """Name the words of a text that the tower cannot represent."""

    def embed(self, ids_BL: Tensor) -> Tensor:
        """Look up tokens [B, L, D] and add their places."""

    def mask(self) -> Tensor:
        """Return the additive causal mask [L, L]."""

    def pool(self, tokens_BLD: Tensor, ids_BL: Tensor) -> Tensor:
        """Turn the last block's tokens into one feature [B, E] a text."""


class Tokenizer(Protocol):
    """Texts to token ids [B, L]; the end of text has the largest id."""

    def __call__(self, texts: list[str], /) -> Tensor:
        """Tokenize."""


class InPlaceGelu(nn.Module):
    """GELU that writes over what it reads; on a processor new memory costs more than GELU does."""

    def forward(self, hidden_BLD: Tensor) -> Tensor:
        """Apply it."""
        written: Tensor = torch.ops.aten.gelu_(hidden_BLD)
        return written


def in_place(activation: nn.Module) -> nn.Module:
    """Return what does the same in place, for a plain GELU; it cannot be trained through."""
    return InPlaceGelu() if is_gelu(activation) else activation


class ClipImageTower(nn.Module):
    """The image half of an open_clip CLIP with a plain ViT."""

    def __init__(self, visual: Any, mean: RGB, std: RGB) -> None:  # noqa: ANN401
        super().__init__()
        if not hasattr(visual, "class_embedding") or getattr(visual, "attn_pool", None) is not None:
            raise BackboneError(
                f"The image tower {type(visual).__name__} is no ViT pooled by its class token; "
                "choose an open_clip ViT such as ViT-B-16-quickgelu."
            )
        self.model: Any = visual.requires_grad_(False)
        self.size = int(visual.image_size[0])
        self.mean, self.std = mean, std
        self.width = int(visual.class_embedding.shape[0])
        self.features = int(visual.proj.shape[1])
        self.reads_class_token = True
        self.blocks: Sequence[FrozenBlock] = tuple(
            ClipBlock(block) for block in visual.transformer.resblocks
        )

    def patches(self, pixels_BCHW: Tensor) -> Tensor:
        """Convolve, prepend the class token, add places."""
        patches_BLD = self.model.conv1(pixels_BCHW).flatten(2).transpose(1, 2)
        token_BLD = self.model.class_embedding.expand(patches_BLD.shape[0], 1, -1)
        return torch.cat([token_BLD, patches_BLD], dim=1) + self.model.positional_embedding

    def fold_pixels(self, mean: Tensor, std: Tensor) -> bool:
        """Take uint8 pixels from now on."""
        if folds := foldable(self.model.conv1):
            self.model.conv1 = PatchProduct(self.model.conv1, mean, std)
        return folds

    def fold_activations(self) -> None:
        """Turn QuickGELU into SiLU: x * sigmoid(a * x) = SiLU(a * x) / a, a in the weights."""
        for block in self.model.transformer.resblocks:
            if isinstance(block.mlp.gelu, QuickGELU):
                block.mlp.c_fc.weight.mul_(QUICK_GELU)
                block.mlp.c_fc.bias.mul_(QUICK_GELU)
                block.mlp.c_proj.weight.div_(QUICK_GELU)
                block.mlp.gelu = nn.SiLU(inplace=True)
            block.mlp.gelu = in_place(block.mlp.gelu)

    def norm(self, tokens_BLD: Tensor) -> Tensor:
        """Apply ln_pre."""
        return self.model.ln_pre(tokens_BLD)

    def head(self, tokens_BLD: Tensor) -> Tensor:
        """Normalise and project the class token."""
        return self.model.ln_post(tokens_BLD[:, 0]) @ self.model.proj


class TimmImageTower(nn.Module):
    """A timm ViT without its classifier; also the compact image tower."""

    def __init__(self, vit: Any, mean: RGB, std: RGB) -> None:  # noqa: ANN401
        super().__init__()
        if not isinstance(vit, VisionTransformer):
            raise BackboneError(
                f"The timm model {type(vit).__name__} is no plain ViT; choose one named vit_*."
            )
        self.model: Any = vit.requires_grad_(False)
        self.size = int(vit.patch_embed.img_size[0])
        self.mean, self.std = mean, std
        self.width = self.features = int(vit.embed_dim)
        self.reads_class_token = vit.global_pool == "token"
        self.blocks: Sequence[FrozenBlock] = tuple(TimmBlock(block) for block in vit.blocks)

    def patches(self, pixels_BCHW: Tensor) -> Tensor:
        """Embed patches, prepend tokens, add places."""
        return self.model._pos_embed(self.model.patch_embed(pixels_BCHW))

    def fold_pixels(self, mean: Tensor, std: Tensor) -> bool:
        """Take uint8 pixels from now on."""
        if folds := foldable(self.model.patch_embed.proj):
            self.model.patch_embed.proj = PatchProduct(self.model.patch_embed.proj, mean, std)
        return folds

    def fold_activations(self) -> None:
        """Let GELU write over what it reads."""
        for block in self.model.blocks:
            block.mlp.act = in_place(block.mlp.act)

    def norm(self, tokens_BLD: Tensor) -> Tensor:
        """Apply norm_pre."""
        return self.model.norm_pre(tokens_BLD)

    def head(self, tokens_BLD: Tensor) -> Tensor:
        """Normalise and pool as the model does, without its classifier."""
        return self.model.forward_head(self.model.norm(tokens_BLD), pre_logits=True)


class ClipTextTower(nn.Module):
    """A causal text transformer in open_clip's layout, pooled at the end token."""

    def __init__(self, model: Any, tokenizer: Tokenizer) -> None:  # noqa: ANN401
        super().__init__()
        pool = getattr(model, "text_pool_type", None) or getattr(model, "pool_type", None)
        if pool != "argmax":
            raise BackboneError(
                f"The text tower pools by {pool!r}, not at its end; choose a CLIP like OpenAI's."
            )
        self.model: Any = model.requires_grad_(False)
        self.tokenizer = tokenizer
        self.width = int(model.token_embedding.embedding_dim)
        self.features = int(model.text_projection.shape[1])
        self.blocks: Sequence[FrozenBlock] = tuple(
            ClipBlock(block) for block in model.transformer.resblocks
        )

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Turn texts into token ids."""
        return self.tokenizer(list(texts))

    def unknown_words(self, text: str) -> tuple[str, ...]:
        """Ask the tokenizer; CLIP's byte pairs know every word."""
        if isinstance(self.tokenizer, WordTokenizer):
            return self.tokenizer.unknown(text)
        return ()

    def embed(self, ids_BL: Tensor) -> Tensor:
        """Look up tokens, add places."""
        return self.model.token_embedding(ids_BL) + self.model.positional_embedding

    def mask(self) -> Tensor:
        """Return the causal mask."""
        return self.model.attn_mask

    def pool(self, tokens_BLD: Tensor, ids_BL: Tensor) -> Tensor:
        """Normalise and project the token with the largest id: the end."""
        ends_BD = tokens_BLD[
            torch.arange(ids_BL.shape[0], device=ids_BL.device), ids_BL.argmax(dim=-1)
        ]
        return self.model.ln_final(ends_BD) @ self.model.text_projection


def open_clip_towers(config: OpenClipConfig) -> tuple[ClipImageTower, ClipTextTower]:
    """Load an open_clip model and take it apart.

    Raises:
        BackboneError: unknown name, weights that cannot be had, not a plain ViT, or OpenAI
            weights in a model without QuickGELU.
    """
    try:
        clip: Any = open_clip.create_model(
            config.name, pretrained=config.pretrained, precision="fp32"
        )
        tokenizer = open_clip.get_tokenizer(config.name)
    except Exception as error:  # hub, disk and name errors have no common class
        raise BackboneError(
            f"open_clip has no {config.name!r} with weights {config.pretrained!r} here ({error}); "
            "check the name, or give a weights file."
        ) from error
    image, text = split_clip(clip, tokenizer)
    if config.pretrained == "openai":
        assert_quick_gelu(image, config.name)
    return image, text


def split_clip(clip: Any, tokenizer: Tokenizer) -> tuple[ClipImageTower, ClipTextTower]:  # noqa: ANN401
    """Take an open_clip model apart; it is not usable as a whole afterwards.

    Raises:
        BackboneError: its image tower is no plain ViT, or its text is not pooled at the end.
    """
    image = ClipImageTower(
        clip.visual,
        getattr(clip.visual, "image_mean", None) or open_clip.OPENAI_DATASET_MEAN,
        getattr(clip.visual, "image_std", None) or open_clip.OPENAI_DATASET_STD,
    )
    text = getattr(clip, "text", clip)
    del clip.visual  # what is left is the text tower
    return image, ClipTextTower(text, tokenizer)


def assert_quick_gelu(image: ClipImageTower, name: str) -> None:
    """Refuse OpenAI weights in a model whose MLPs use the exact GELU."""
    if not isinstance(image.model.transformer.resblocks[0].mlp.gelu, QuickGELU):
        raise BackboneError(
            f"OpenAI's weights need QuickGELU, which {name!r} lacks; use {name}-quickgelu."
        )


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


def compact_image_tower(config: CompactConfig) -> TimmImageTower:
    """Build the compact image tower at random."""
    vit = VisionTransformer(
        img_size=config.size,
        patch_size=config.patch,
        embed_dim=config.width,
        depth=config.depth,
        num_heads=config.heads,
        num_classes=0,
    )
    return TimmImageTower(vit.eval(), config.mean, config.std)


def compact_text_tower(config: CompactTextConfig, features: int) -> ClipTextTower:
    """Build the compact text tower at random; it ends in the image tower's feature space."""
    tokenizer = WordTokenizer(config.words, config.context)
    model = TextTransformer(
        context_length=config.context,
        vocab_size=tokenizer.size,
        width=config.width,
        heads=config.heads,
        layers=config.layers,
        output_dim=features,
    )
    return ClipTextTower(model.eval(), tokenizer)
