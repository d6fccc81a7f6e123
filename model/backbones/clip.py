"""open_clip's CLIPs with a plain ViT, taken apart into an image tower and a text tower.

Dimensions: B frames or texts, C H W pixels, L tokens, D token width, E feature width, H heads.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import open_clip
import torch
from open_clip.transformer import QuickGELU
from torch import Tensor, nn
from torch.nn import functional as F

from model.backbones.attention import join_heads, split_heads
from model.backbones.words import WordTokenizer
from model.config import OpenClipConfig
from model.errors import BackboneError
from model.slots import RGB, TransformerBlock


class Tokenizer(Protocol):
    """Texts to token ids [B, L]; the end of text has the largest id, padding the least."""

    def __call__(self, texts: list[str], context_length: int | None = None) -> Tensor:
        """Tokenize; texts of more than `context_length` tokens, or L, are cut."""


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

    def norm_mlp(self, tokens_BLD: Tensor) -> Tensor:
        """Apply ln_2."""
        return self.block.ln_2(tokens_BLD)

    def mlp(self, normed_BLD: Tensor) -> Tensor:
        """Apply the MLP."""
        return self.block.ls_2(self.block.mlp(normed_BLD))


class ClipImageTower(nn.Module):
    """The image half of an open_clip CLIP with a plain ViT."""

    def __init__(self, visual: Any, mean: RGB, std: RGB) -> None:  # noqa: ANN401
        super().__init__()
        if not hasattr(visual, "class_embedding") or getattr(visual, "attn_pool", None) is not None:
            raise BackboneError(
                f"The image tower {type(visual).__name__} is no ViT pooled by its class token; "
                "choose an open_clip ViT such as ViT-B-16-quickgelu."
            )
        self.model: Any = visual
        self.size = int(visual.image_size[0])
        self.mean, self.std = mean, std
        self.width = int(visual.class_embedding.shape[0])
        self.features = int(visual.proj.shape[1])
        self.prefix_tokens = 1
        self.reads_class_token = True
        self.blocks: Sequence[TransformerBlock] = tuple(
            ClipBlock(block) for block in visual.transformer.resblocks
        )

    def patches(self, pixels_BCHW: Tensor) -> Tensor:
        """Convolve, prepend the class token, add places."""
        patches_BLD = self.model.conv1(pixels_BCHW).flatten(2).transpose(1, 2)
        token_BLD = self.model.class_embedding.expand(patches_BLD.shape[0], 1, -1)
        return torch.cat([token_BLD, patches_BLD], dim=1) + self.model.positional_embedding

    def norm(self, tokens_BLD: Tensor) -> Tensor:
        """Apply ln_pre."""
        return self.model.ln_pre(tokens_BLD)

    def head(self, tokens_BLD: Tensor) -> Tensor:
        """Normalise and project the class token."""
        return self.model.ln_post(tokens_BLD[:, 0]) @ self.model.proj


class ClipTextTower(nn.Module):
    """A causal text transformer in open_clip's layout, pooled at the end token."""

    def __init__(self, model: Any, tokenizer: Tokenizer) -> None:  # noqa: ANN401
        super().__init__()
        pool = getattr(model, "text_pool_type", None) or getattr(model, "pool_type", None)
        if pool != "argmax":
            raise BackboneError(
                f"The text tower pools by {pool!r}, not at its end; choose a CLIP like OpenAI's."
            )
        self.model: Any = model
        self.tokenizer = tokenizer
        self.width = int(model.token_embedding.embedding_dim)
        self.features = int(model.text_projection.shape[1])
        self.context = int(model.positional_embedding.shape[0])
        self.blocks: Sequence[TransformerBlock] = tuple(
            ClipBlock(block) for block in model.transformer.resblocks
        )

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Turn texts into token ids."""
        return self.tokenizer(list(texts))

    def read(self, text: str) -> tuple[int, ...] | None:
        """Tokenize one text with room for one token more, which a text that fits leaves empty."""
        (ids_L,) = self.tokenizer([text], context_length=self.context + 1)
        end = int(ids_L.argmax())
        return tuple(ids_L[: end + 1].tolist()) if end < self.context else None

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
