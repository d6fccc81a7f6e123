"""SloshNet: four levels of a tower aligned, fused, and followed in short and in long term.

Source: SloshNet (model/papers/sloshnet.md). What it gives are frames, which TRX compares.

Dimensions: B clips, T frames, N = B * T, C channels, H W cells of a map, L = H * W, G groups.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.errors import MethodError

GROUPS = 16  # of channels that share a kernel of the short-term module
NORM_EPS = 1e-12  # of the long-term module
KINDS = 3  # of ways to put two maps together
LAST_SHARE = 0.6  # of the last level in the fused map, at the start


class Halving(nn.Sequential):
    """Halve a map's sides and double its channels, some times."""

    def __init__(self, width: int, times: int) -> None:
        steps: list[nn.Module] = []
        for _ in range(times):
            halve = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False)
            steps += [nn.ReLU(), nn.BatchNorm2d(width), halve]
            width *= 2
        super().__init__(*steps)


class PlaceWise(nn.Module):
    """Norm and map each place's channels, where all levels have one shape: on a ViT."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.map = nn.LayerNorm(width), nn.Linear(width, width)

    def forward(self, map_NCHW: Tensor) -> Tensor:
        """Return a map of the same shape."""
        return self.map(self.norm(map_NCHW.movedim(1, -1))).movedim(-1, 1)


def alignment(widths: Sequence[int]) -> nn.ModuleList:
    """Make what brings maps of these widths to the shape of the last.

    Raises:
        MethodError: They neither double from level to level nor are all one, or there are none.
    """
    if not widths:
        raise MethodError(
            "SloshNet reads maps of four levels, and a network that sees whole clips has none; "
            "choose a ViT or a ResNet."
        )
    last, levels = widths[-1], len(widths)
    if len(set(widths)) == 1:
        return nn.ModuleList(PlaceWise(last) for _ in widths)
    if any(width << (levels - 1 - place) != last for place, width in enumerate(widths)):
        raise MethodError(
            f"SloshNet aligns levels of one width, or of widths that double, not {list(widths)}; "
            "choose a ViT, or a ResNet such as resnet50."
        )
    return nn.ModuleList(Halving(width, levels - 1 - place) for place, width in enumerate(widths))


class Fusion(nn.Module):
    """A soft search of how levels meet: every way at once, weighed; nothing is made discrete.

    Args:
        levels: How many.
    """

    def __init__(self, levels: int) -> None:
        super().__init__()
        # One softmax for each edge between a state and a level (alpha), one over the results (beta)
        self.edges = nn.ParameterList(
            1e-3 * torch.randn(state, KINDS) for state in range(1, levels)
        )
        first = (1 - LAST_SHARE) / levels
        self.shares = nn.Parameter(torch.tensor([first] * levels + [LAST_SHARE]).log())

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Fuse aligned maps [N, C, H, W], the lowest level first; returns map_NCHW."""
        results = [*self.states(maps), maps[-1]]
        shares = self.shares.softmax(dim=0)
        return torch.stack([share * one for share, one in zip(shares, results, strict=True)]).sum(0)

    def states(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return the states: the first level, then one for each that is added."""
        states = [maps[0]]
        for level, edges in zip(maps[1:], self.edges, strict=True):
            weights = edges.softmax(dim=1)
            met = [meet(state, level, way) for state, way in zip(states, weights, strict=True)]
            states.append(torch.stack(met).sum(dim=0))
        return states


def meet(state_NCHW: Tensor, level_NCHW: Tensor, weights: Tensor) -> Tensor:
    """Put a state and a level together: each gated by the other's mean, and their sum."""
    gated_state = level_NCHW + level_NCHW.mean(dim=(2, 3), keepdim=True).sigmoid() * state_NCHW
    gated_level = state_NCHW + state_NCHW.mean(dim=(2, 3), keepdim=True).sigmoid() * level_NCHW
    both = state_NCHW + level_NCHW
    return weights[0] * gated_state + weights[1] * gated_level + weights[2] * both


class ShortTerm(nn.Module):
    """What changes from a frame to the next gates each frame's values; the sign is the paper's.

    Args:
        width: C.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, 3 * width, bias=False)
        group = width // GROUPS
        self.query = nn.Conv2d(group, group, 3, padding=1, groups=group, bias=False)
        self.key = nn.Conv2d(group, group, 3, padding=1, groups=group, bias=False)
        self.inner = nn.Linear(width, width, bias=False)
        self.gate = nn.Linear(width, width, bias=False)

    def forward(self, map_BTCHW: Tensor) -> Tensor:
        """Return map_BTCHW of clips, each by itself."""
        projected = self.project(map_BTCHW.movedim(2, -1)).movedim(-1, 2)
        query, key, value = projected.chunk(3, dim=2)
        query, key = self._near(self.query, query), self._near(self.key, key)
        change = F.pad(key[:, 1:] - query[:, :-1], (0, 0, 0, 0, 0, 0, 0, 1))
        gate = self.gate(F.gelu(self.inner(change.movedim(2, -1)))).sigmoid()
        return -gate.movedim(-1, 2) * value

    def _near(self, kernel: nn.Conv2d, map_BTCHW: Tensor) -> Tensor:
        by_group = map_BTCHW.flatten(0, 1).unflatten(1, (GROUPS, -1))  # all groups share a kernel
        near = kernel(by_group.flatten(0, 1)).unflatten(0, by_group.shape[:2])
        return near.flatten(1, 2).unflatten(0, map_BTCHW.shape[:2])


class LongTerm(nn.Module):
    """A transformer block along time, at each place.

    Args:
        width: C.
        heads: Of its attention.
        released: Whether axes are mixed up as in the released code: places of all clips attend to
            each other, at each frame by itself, and the result is read with channels and frames
            exchanged. It is for parity alone.
    """

    def __init__(self, width: int, heads: int, *, released: bool = False) -> None:
        super().__init__()
        self.released = released
        self.norm_attention = nn.LayerNorm(width, eps=NORM_EPS)
        self.norm_mlp = nn.LayerNorm(width, eps=NORM_EPS)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, map_BTCHW: Tensor) -> Tensor:
        """Return map_BTCHW of clips."""
        sizes = map_BTCHW.shape
        places_PTC = map_BTCHW.permute(0, 3, 4, 1, 2).flatten(0, 2)
        if self.released:
            mixed_PTC = self.block(places_PTC.transpose(0, 1)).transpose(0, 1).contiguous()
            mixed_BHWCT = mixed_PTC.view(sizes[0], *sizes[3:], sizes[2], sizes[1])
            return mixed_BHWCT.permute(0, 4, 3, 1, 2)
        along_BHWTC = self.block(places_PTC).unflatten(0, (sizes[0], *sizes[3:]))
        return along_BHWTC.permute(0, 3, 4, 1, 2)

    def block(self, tokens_PTC: Tensor) -> Tensor:
        """Run the block on sequences."""
        normed = self.norm_attention(tokens_PTC)
        tokens_PTC = tokens_PTC + self.attention(normed, normed, normed, need_weights=False)[0]
        wide = self.widen(self.norm_mlp(tokens_PTC))
        return tokens_PTC + self.narrow(wide * (1.702 * wide).sigmoid())  # QuickGELU


class SloshNet(nn.Module):
    """Maps of four levels to frames.

    Args:
        widths: C of each level, the lowest first.
        heads: Of the long-term attention.
        released: As of `LongTerm`; clips of a pass then see each other.
    """

    def __init__(self, widths: Sequence[int], *, heads: int = 8, released: bool = False) -> None:
        super().__init__()
        self.align = alignment(widths)
        width = widths[-1]
        if width % heads or width % GROUPS:
            raise MethodError(
                f"SloshNet splits {width} channels in {heads} heads and in {GROUPS} groups, and "
                "they do not divide; choose other heads or another tower."
            )
        self.reads_levels, self.features = len(widths), width
        self.transductive = released
        self.fusion = Fusion(len(widths))
        self.short_term = ShortTerm(width)
        self.long_term = LongTerm(width, heads, released=released)
        self.terms = nn.Parameter(torch.zeros(2))  # the long term's weight, the short term's

    def is_initial(self) -> bool:
        """Tell that no start of it equals the tower without it."""
        return False

    def forward(self, maps: Sequence[Any]) -> Tensor:
        """Return frames [B, T, C] of the maps [B, T, C, H, W] of the levels."""
        clips = maps[0].shape[:2]
        fused_BTCHW = self.fusion(self.aligned(maps)).unflatten(0, clips)
        long, short = 2 * self.terms.softmax(dim=0)
        both = short * self.short_term(fused_BTCHW) + long * self.long_term(fused_BTCHW)
        frames_BTC: Tensor = both.mean(dim=(3, 4))
        return frames_BTC

    def aligned(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Bring each level to the shape of the last [N, C, H, W]."""
        pairs = zip(self.align, maps, strict=True)
        return [align(one.flatten(0, 1)) for align, one in pairs]
