"""TED: temporal enhancement and difference adapters of M2-CLIP (model/papers/m2clip.md).

Dimensions: B clips, T frames, L tokens (the class token, then G x G patches), P patches, D width,
A adapter width.
"""

import math

import torch
from torch import Tensor, nn

from model.backbones.attention import attention
from model.errors import MethodError
from model.slots import BlockView, TransformerBlock
from model.temporal.convolution import TemporalConvolution


class TedAdapter(nn.Module):
    """x + TE(x) + [0 for the class token; TD(x)]: two branches without an activation.

    Both convolutions start at zero, so the adapter starts as the identity.

    Args:
        width: Token width D.
        ratio: A as a fraction of D.
    """

    def __init__(self, width: int, ratio: float) -> None:
        super().__init__()
        hidden = int(width * ratio)
        self.enhance = TemporalConvolution(width, ratio)
        self.difference_down = nn.Linear(width, hidden)
        self.difference = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.difference_up = nn.Linear(hidden, width)
        nn.init.zeros_(self.difference.weight)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)

    def is_initial(self) -> bool:
        """Tell whether it is the identity, as before training."""
        assert self.difference.bias is not None
        moved = (self.difference.weight, self.difference.bias, self.difference_up.bias)
        return self.enhance.is_initial() and not any(torch.any(tensor) for tensor in moved)

    def forward(self, tokens_BTLD: Tensor) -> Tensor:
        """Adapt the tokens of clips, each clip by itself; returns tokens_BTLD."""
        sequences_BLTD = tokens_BTLD.transpose(1, 2)
        enhanced_NTD = self.enhance(sequences_BLTD.flatten(0, 1))  # x + TE(x), along time
        enhanced_BLTD = enhanced_NTD.unflatten(0, sequences_BLTD.shape[:2])
        changes_BTPD = self.spatial_difference(tokens_BTLD[:, :, 1:])
        changes_BTLD = nn.functional.pad(changes_BTPD, (0, 0, 1, 0))
        return enhanced_BLTD.transpose(1, 2) + changes_BTLD

    def spatial_difference(self, patches_BTPD: Tensor) -> Tensor:
        """Convolve what changed since the frame before over the grid of patches.

        Raises:
            MethodError: The patches are no square grid.
        """
        batch, frames, patches, _ = patches_BTPD.shape
        side = math.isqrt(patches)
        if side * side != patches:
            raise MethodError(
                f"TED adapters convolve over a square grid, and {patches} patches are none; "
                "let training look at all patches (patches=1)."
            )
        change_BTPD = torch.diff(patches_BTPD, dim=1, prepend=patches_BTPD[:, :1])
        down_NPA = self.difference_down(change_BTPD).flatten(0, 1)
        grid_NAGG = down_NPA.transpose(1, 2).unflatten(2, (side, side))
        along_NPA = self.difference(grid_NAGG).flatten(2).transpose(1, 2)
        return self.difference_up(along_NPA).unflatten(0, (batch, frames))


class TedBlock(nn.Module):
    """A frozen block with TED adapters in its stream: in front of the MLP, and of attention too.

    Args:
        block: The frozen block; its weights stay its tower's.
        width: Token width D.
        ratio: Width of the adapters as a fraction of D.
        before_attention: Whether there is one in front of attention (`24x384`).
    """

    across_clips, reads_text = False, False

    def __init__(
        self, block: TransformerBlock, width: int, ratio: float, *, before_attention: bool = False
    ) -> None:
        super().__init__()
        self.block = block
        self.before_attention = TedAdapter(width, ratio) if before_attention else None
        self.before_mlp = TedAdapter(width, ratio)

    def is_initial(self) -> bool:
        """Tell whether no adapter changes what the frozen block computes."""
        adapters = (self.before_attention, self.before_mlp)
        return all(adapter is None or adapter.is_initial() for adapter in adapters)

    def forward(self, tokens_BTLD: Tensor, view: BlockView) -> Tensor:  # noqa: ARG002
        """Run the block; clips do not see each other. Returns tokens_BTLD."""
        if self.before_attention is not None:
            tokens_BTLD = self.before_attention(tokens_BTLD)
        normed_NLD = self.block.norm_attention(tokens_BTLD).flatten(0, 1)
        update_NLD = attention(self.block, normed_NLD)
        tokens_BTLD = tokens_BTLD + update_NLD.unflatten(0, tokens_BTLD.shape[:2])
        tokens_BTLD = self.before_mlp(tokens_BTLD)
        return tokens_BTLD + self.block.mlp(self.block.norm_mlp(tokens_BTLD))
