"""Networks in open_clip's layout as towers: a plain ViT, and a text transformer.

Dimensions: B frames or texts, C H W pixels, L tokens, D token width, E feature width, H heads.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.backbones.attention import Residual, join_heads, split_heads
from model.backbones.maps.levels import PatchLevels
from model.backbones.tokens import FolderTokenizer, Tokenizer, read_whole
from model.backbones.words import WordTokenizer
from model.errors import BackboneError
from model.slots import RGB, Block, TransformerBlock


class ClipBlock(Residual):
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

    def placed(self, query_BHLE: Tensor, key_BHLE: Tensor) -> tuple[Tensor, Tensor]:
        """Leave them: places were added to the tokens."""
        return query_BHLE, key_BHLE

    def merge(self, attended_BHLE: Tensor) -> Tensor:
        """Project with out_proj."""
        return self.block.ls_1(self.block.attn.out_proj(join_heads(attended_BHLE)))

    def norm_mlp(self, tokens_BLD: Tensor) -> Tensor:
        """Apply ln_2."""
        return self.block.ln_2(tokens_BLD)

    def mlp(self, normed_BLD: Tensor) -> Tensor:
        """Apply the MLP."""
        return self.block.ls_2(self.block.mlp(normed_BLD))


class ClipImageTower(PatchLevels, nn.Module):
    """The image half of an open_clip CLIP with a plain ViT."""

    def __init__(self, visual: Any, mean: RGB, std: RGB) -> None:  # noqa: ANN401
        super().__init__()
        pooled = hasattr(visual, "class_embedding") and visual.pool_type == "tok"
        if not pooled or visual.attn_pool is not None:
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
        norm = ("ln_post.weight", "ln_post.bias")
        self.parts: Mapping[str, Sequence[str]] = {
            "class_token": ("class_embedding",),
            "last_norm": norm,
        }
        self.reads_class_token = True
        self.blocks: Sequence[Block] = tuple(
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
        return self.pooled(tokens_BLD) @ self.model.proj

    def pooled(self, tokens_BLD: Tensor) -> Tensor:
        """Normalise the class token."""
        return self.model.ln_post(tokens_BLD[:, 0])


class ClipTextTower(nn.Module):
    """A text transformer in open_clip's layout, pooled at the end token or the last place."""

    def __init__(self, model: Any, tokenizer: Tokenizer) -> None:  # noqa: ANN401
        super().__init__()
        pool = getattr(model, "text_pool_type", None) or getattr(model, "pool_type", None)
        plain = getattr(model, "cls_emb", None) is None
        plain = plain and not getattr(model, "use_pad_mask", False)
        if pool not in ("argmax", "last") or not plain:
            raise BackboneError(
                f"The text tower pools by {pool!r}, not at its end; choose a CLIP like OpenAI's."
            )
        self.model: Any = model
        self.at_last_place = pool == "last"
        self.tokenizer = tokenizer
        self.width = int(model.token_embedding.embedding_dim)
        linear = isinstance(model.text_projection, nn.Linear)
        self.features = int(
            model.text_projection.weight.shape[0] if linear else model.text_projection.shape[1]
        )
        self.context = int(model.positional_embedding.shape[0])
        self.blocks: Sequence[TransformerBlock] = tuple(
            ClipBlock(block) for block in model.transformer.resblocks
        )

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Turn texts into token ids."""
        return self.tokenizer(list(texts))

    def read(self, text: str) -> tuple[int, ...] | None:
        """Tokenize one text; at the token with the largest id, a tower that pools there stops."""
        ids = read_whole(self.tokenizer, text, self.context)
        if ids is None or self.at_last_place:
            return ids
        return ids[: ids.index(max(ids)) + 1]

    def unknown_words(self, text: str) -> tuple[str, ...]:
        """Ask the tokenizer; CLIP's byte pairs know every word."""
        if isinstance(self.tokenizer, WordTokenizer | FolderTokenizer):
            return self.tokenizer.unknown(text)
        return ()

    def embed(self, ids_BL: Tensor) -> Tensor:
        """Look up tokens, add places."""
        return self.model.token_embedding(ids_BL) + self.model.positional_embedding

    def mask(self) -> Tensor:
        """Return the causal mask, or one that hides nothing where the tower reads both ways."""
        if self.model.attn_mask is not None:
            return self.model.attn_mask
        places = self.model.positional_embedding
        return places.new_zeros(len(places), len(places))

    def pool(self, tokens_BLD: Tensor, ids_BL: Tensor) -> Tensor:
        """Normalise and project the last token, or that with the largest id: the end."""
        if self.at_last_place:
            ends_BD = tokens_BLD[:, -1]
        else:
            rows = torch.arange(ids_BL.shape[0], device=ids_BL.device)
            ends_BD = tokens_BLD[rows, ids_BL.argmax(dim=-1)]
        normed_BD, projection = self.model.ln_final(ends_BD), self.model.text_projection
        return projection(normed_BD) if callable(projection) else normed_BD @ projection
