"""Dense modelling along time on feature maps: GgHM's LDTM (model/papers/gghm.md, section 2).

From the paper's figures and notes (arXiv 2308.09346): no code is public, numbers are our choice.

Dimensions: B clips, N frames, T frames of a clip, C channels, H W places of a map, P = H * W.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class DenseTemporal(nn.Module):
    """Places moved along time, channels convolved along it, each then seen in space; their mean.

    Starts as the mean over the places of a map.

    Args:
        channels: C.
        frames: T.
        heads: Of the attention in space.
        ratio: Hidden width of its MLP as a fraction of C.
        gap: One place in so many is not moved along time.
        moved_share: Weight of the moved places, beside those as they were (gamma).
        patch_share: Weight of the branch of places, beside that of channels (beta).
    """

    reads_levels, transductive = 1, False

    def __init__(
        self,
        channels: int,
        frames: int,
        *,
        heads: int,
        ratio: float,
        gap: int,
        moved_share: float,
        patch_share: float,
    ) -> None:
        super().__init__()
        self.features = channels
        self.gap, self.moved_share, self.patch_share = gap, moved_share, patch_share
        self.time_in = nn.Linear(frames, frames, bias=False)
        self.time_out = nn.Linear(frames, frames, bias=False)
        nn.init.zeros_(self.time_out.weight)
        self.taps = nn.Conv1d(channels, channels, 3, padding=1, groups=channels, bias=False)
        with torch.no_grad():
            self.taps.weight.copy_(torch.tensor([0.0, 1.0, 0.0]).expand_as(self.taps.weight))
        self.space = InSpace(channels, heads, ratio)

    def is_initial(self) -> bool:
        """Tell that it is no tower's own feature, even where it is the mean over places."""
        return False

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return features_BTC of clips, each by itself.

        Args:
            maps: The last level's [B, T, C, H, W].
        """
        (map_BTCHW,) = maps
        return self.dense(map_BTCHW.flatten(3).transpose(2, 3)).mean(dim=2)

    def dense(self, map_BTPC: Tensor) -> Tensor:
        """Run both branches; returns map_BTPC."""
        patch, channel = self.patch_branch(map_BTPC), self.channel_branch(map_BTPC)
        return self.patch_share * patch + (1 - self.patch_share) * channel

    def patch_branch(self, map_BTPC: Tensor) -> Tensor:
        """See moved places in space, beside those as they were."""
        moved, still = self.space(self.shifted(map_BTPC), map_BTPC), self.space(map_BTPC, map_BTPC)
        return self.moved_share * moved + (1 - self.moved_share) * still

    def shifted(self, map_BTPC: Tensor) -> Tensor:
        """Mix each place along time, but one in `gap`."""
        along_BPCT = map_BTPC.permute(0, 2, 3, 1)
        mixed_BPCT = self.time_out(F.relu(self.time_in(along_BPCT))) + along_BPCT
        still_P = torch.arange(map_BTPC.shape[2], device=map_BTPC.device) % self.gap == 0
        return torch.where(still_P[:, None], map_BTPC, mixed_BPCT.permute(0, 3, 1, 2))

    def channel_branch(self, map_BTPC: Tensor) -> Tensor:
        """Convolve each channel along three frames, then see it in space."""
        batch, _, places, _ = map_BTPC.shape
        along_NCT = map_BTPC.permute(0, 2, 3, 1).flatten(0, 1)
        along_BPCT = self.taps(along_NCT).unflatten(0, (batch, places))
        return self.space(along_BPCT.permute(0, 3, 1, 2), map_BTPC)


class InSpace(nn.Module):
    """Attention over the places of a frame, added to a map that may be another; then an MLP.

    Args:
        channels: C.
        heads: How many.
        ratio: Hidden width of the MLP as a fraction of C.
    """

    def __init__(self, channels: int, heads: int, ratio: float) -> None:
        super().__init__()
        hidden = int(ratio * channels)
        self.attention = nn.MultiheadAttention(channels, heads, batch_first=True)
        self.norm = nn.LayerNorm(channels)
        self.widen, self.narrow = nn.Linear(channels, hidden), nn.Linear(hidden, channels)
        for last in (self.attention.out_proj, self.narrow):  # so that it starts as the identity
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, seen_BTPC: Tensor, added_BTPC: Tensor) -> Tensor:
        """Return attention among the first's places plus the second, and the MLP of that."""
        seen_NPC = seen_BTPC.flatten(0, 1)
        attended_NPC, _ = self.attention(seen_NPC, seen_NPC, seen_NPC, need_weights=False)
        sum_BTPC = attended_NPC.unflatten(0, seen_BTPC.shape[:2]) + added_BTPC
        return sum_BTPC + self.narrow(F.gelu(self.widen(self.norm(sum_BTPC))))
