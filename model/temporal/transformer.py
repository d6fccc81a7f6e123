"""ActionCLIP's transformers over a clip's frames (model/papers/actionclip.md, section 2).

Each gives one feature a clip, as one instant. Places are learned, so a clip has the number of
frames that the head was made for. Dimensions: B clips, T frames, E feature width.
"""

from functools import partial

import torch
from torch import Tensor, nn

from model.errors import MethodError

PLACES = 77  # rows of the table of places, of which a clip's first T are used


class FrameTransformer(nn.Module):
    """mean(transformer(f + places) + f): CLIP's blocks, with LayerNorms of eps 1e-12 (Transf).

    Args:
        features: E.
        frames: T.
        depth: Blocks.
        heads: Of each block; E / 64 in the release.

    Raises:
        MethodError: More frames than there are places.
    """

    reads_levels, transductive, one_instant = 0, False, True

    def __init__(self, features: int, frames: int, *, depth: int = 6, heads: int) -> None:
        from open_clip.transformer import QuickGELU, ResidualAttentionBlock  # takes seconds

        super().__init__()
        if frames > PLACES:
            raise MethodError(
                f"frames is {frames}; the transformer along time has {PLACES} places, choose fewer."
            )
        self.features, self.frames = features, frames
        self.places = nn.Parameter(torch.empty(PLACES, features))
        norm = partial(nn.LayerNorm, eps=1e-12)
        self.blocks = nn.ModuleList(
            ResidualAttentionBlock(features, heads, act_layer=QuickGELU, norm_layer=norm)
            for _ in range(depth)
        )
        nn.init.normal_(self.places, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def is_initial(self) -> bool:
        """Tell that no start of it equals the backbone without it."""
        return False

    def forward(self, features_BTE: Tensor) -> Tensor:
        """Return one feature a clip, features_B1E.

        Raises:
            MethodError: Another number of frames, whose places were never learned.
        """
        check_frames(features_BTE, self.frames)
        tokens_BTE = features_BTE + self.places[: self.frames].to(features_BTE.dtype)
        for block in self.blocks:
            tokens_BTE = block(tokens_BTE)
        return (tokens_BTE + features_BTE).mean(dim=1, keepdim=True)


class FrameTokenTransformer(nn.Module):
    """The first token of post-norm layers over [token; f] + places (Transf_cls).

    Args:
        features: E.
        frames: T.
        depth: Layers.
        heads: Of each layer.
        hidden: Width of each MLP.
        dropout: In each layer.
    """

    reads_levels, transductive, one_instant = 0, False, True

    def __init__(
        self, features: int, frames: int, *, depth: int, heads: int, hidden: int, dropout: float
    ) -> None:
        super().__init__()
        self.features, self.frames = features, frames
        self.token = nn.Parameter(torch.empty(1, 1, features))
        self.places = nn.Parameter(torch.empty(1, frames + 1, features))
        layer = nn.TransformerEncoderLayer(features, heads, hidden, dropout, batch_first=True)
        self.encoder = nn.TransformerEncoder(
            layer, depth, nn.LayerNorm(features), enable_nested_tensor=False
        )
        linear = [module for module in self.modules() if isinstance(module, nn.Linear)]
        for tensor in (self.token, self.places, *(module.weight for module in linear)):
            with torch.no_grad():
                tensor.normal_().fmod_(2).mul_(0.02)
        for module in linear:
            nn.init.zeros_(module.bias)

    def is_initial(self) -> bool:
        """Tell that no start of it equals the backbone without it."""
        return False

    def forward(self, features_BTE: Tensor) -> Tensor:
        """Return one feature a clip, features_B1E.

        Raises:
            MethodError: Another number of frames, whose places were never learned.
        """
        check_frames(features_BTE, self.frames)
        token_B1E = self.token.to(features_BTE.dtype).expand(len(features_BTE), -1, -1)
        tokens_BLE = torch.cat([token_B1E, features_BTE], dim=1)
        return self.encoder(tokens_BLE + self.places.to(features_BTE.dtype))[:, :1]


def check_frames(features_BTE: Tensor, frames: int) -> None:
    """Refuse clips of another length than a head learned, with a MethodError."""
    if features_BTE.shape[1] != frames:
        raise MethodError(
            f"A clip has {features_BTE.shape[1]} frames, and the head along time learned the "
            f"places of {frames}; sample {frames}."
        )
