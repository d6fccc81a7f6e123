"""D2ST-Adapter: deformable attention in space and along time, in one bottleneck.

Source: D2ST-Adapter (model/papers/d2st.md). One pathway samples few frames at many places, the
other all frames at few places; each token of the clip attends to what was sampled.

Dimensions: B clips, T frames, L tokens of a frame, P patches of it, D token width, A adapter width,
H heads and groups of channels, C channels of a head, G side of the grid of patches, U V W the grid
of samples, S samples.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.backbones.attention import attend, join_heads, split_heads
from model.backbones.maps.levels import square_map
from model.errors import MethodError
from model.slots import Block, BlockView

Sizes = tuple[int, int, int]  # frames, rows, columns


class Sampling(NamedTuple):
    """Where a pathway samples: kernel and stride of the convolution that finds the places."""

    kernel: Sizes
    stride: Sizes


class Pathways(NamedTuple):
    """The sampling in space, and along time."""

    space: Sampling
    time: Sampling


PATCHES = Pathways(Sampling((4, 5, 5), (4, 3, 3)), Sampling((1, 7, 7), (1, 7, 7)))  # of a ViT
_WIDE = Sampling((4, 7, 7), (4, 7, 7))
# Of the four stages of a ResNet that is shown 224 pixels.
STAGES = (
    Pathways(_WIDE, Sampling((1, 14, 14), (1, 14, 14))),
    Pathways(_WIDE, Sampling((1, 14, 14), (1, 14, 14))),
    PATCHES,
    Pathways(Sampling((4, 4, 4), (4, 3, 3)), Sampling((1, 7, 7), (1, 7, 7))),
)
STAGE_HEADS = (1, 2, 4, 8)
LEAST_FRAMES = 4  # that the pathways in space look at together


class DeformableAttention(nn.Module):
    """Attention of all tokens of a clip to samples of its patches, at places that it finds itself.

    Positions and samples are in fp32 with autocast off: a bfloat16 coordinate near 1 is off by
    1/512, and the gradients of offsets would round away.

    Args:
        width: A.
        heads: H; each samples its own channels at its own places.
        sampling: How places are found.
    """

    def __init__(self, width: int, heads: int, sampling: Sampling) -> None:
        super().__init__()
        self.heads = heads
        channels = width // heads
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.look = nn.Conv3d(channels, channels, sampling.kernel, sampling.stride, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.offset = nn.Linear(channels, 3, bias=False)

    def forward(self, tokens_BTLA: Tensor, prefix: int) -> Tensor:
        """Attend.

        Args:
            tokens_BTLA: All tokens of clips, normed.
            prefix: Tokens of a frame in front of its patches, which are not sampled.

        Returns:
            tokens_BTLA.

        Raises:
            MethodError: Too few frames or patches, or patches that are no square grid.
        """
        query_BTLA = self.query(tokens_BTLA)
        places_NUVW3 = self.places(query_BTLA[:, :, prefix:])
        sampled_BSA = self.sampled(tokens_BTLA[:, :, prefix:], places_NUVW3).to(query_BTLA.dtype)
        attended_BHLC = attend(
            split_heads(query_BTLA.flatten(1, 2), self.heads),
            split_heads(self.key(sampled_BSA), self.heads),
            split_heads(self.value(sampled_BSA), self.heads),
        )
        attended_BLA = self.out(join_heads(attended_BHLC))
        return attended_BLA.unflatten(1, tokens_BTLA.shape[1:3])

    def places(self, query_BTPA: Tensor) -> Tensor:
        """Return where each group samples [B H, U, V, W, 3], as frame, row and column in [-1, 1].

        A place may lie outside of the clip, where all is zero.
        """
        volume_NCTGG = self._groups(query_BTPA)
        sizes, kernel = tuple(volume_NCTGG.shape[2:]), self.look.kernel_size
        if any(size < least for size, least in zip(sizes, kernel, strict=True)):
            raise MethodError(
                f"D2ST adapters look at {kernel[0]} frames of {kernel[1]} x {kernel[2]} cells at "
                f"once, and were given {sizes[0]} of {sizes[1]} x {sizes[2]}; choose 4 frames or "
                "more, and a tower of finer patches or of 224 pixels."
            )
        with torch.autocast(query_BTPA.device.type, enabled=False):
            assert self.look.bias is not None
            found_NCUVW = F.conv3d(
                volume_NCTGG,
                self.look.weight.float(),
                self.look.bias.float(),
                self.look.stride,
                groups=self.look.groups,
            )
            normed_NUVWC = F.layer_norm(
                found_NCUVW.movedim(1, -1),
                self.norm.normalized_shape,
                self.norm.weight.float(),
                self.norm.bias.float(),
                self.norm.eps,
            )
            offset_NUVW3 = F.linear(F.gelu(normed_NUVWC), self.offset.weight.float()).tanh()
            grid = [
                (2 * torch.arange(size, device=query_BTPA.device) + 1) / size - 1
                for size in offset_NUVW3.shape[1:4]
            ]
            reach_3 = offset_NUVW3.new_tensor([min(1, 2 / len(axis)) for axis in grid])
            centres_UVW3 = torch.stack(torch.meshgrid(*grid, indexing="ij"), dim=-1)
            return centres_UVW3 + offset_NUVW3 * reach_3

    def sampled(self, patches_BTPA: Tensor, places_NUVW3: Tensor) -> Tensor:
        """Sample the patches, each group at its places; returns samples_BSA in fp32."""
        with torch.autocast(patches_BTPA.device.type, enabled=False):
            sampled_NCUVW = F.grid_sample(
                self._groups(patches_BTPA),
                places_NUVW3.flip(-1),  # column, row, frame
                padding_mode="zeros",
                align_corners=True,
            )
        sampled_BAUVW = sampled_NCUVW.unflatten(0, (-1, self.heads)).flatten(1, 2)
        return sampled_BAUVW.flatten(2).transpose(1, 2)

    def _groups(self, patches_BTPA: Tensor) -> Tensor:
        """Lay each group's channels out as an fp32 volume [B H, C, T, G, G]."""
        volume_BATGG = volume_of(patches_BTPA).float()
        return volume_BATGG.unflatten(1, (self.heads, -1)).flatten(0, 1)


class D2stAdapter(nn.Module):
    """What a block's output gains: down, both pathways side by side, their mean, up.

    `up` starts at zero, so the adapter starts at zero.

    Args:
        width: D.
        hidden: A.
        heads: Of both attentions.
        pathways: Where they sample.
        prefix: Tokens of a frame in front of its patches.
        bent: Whether GELU follows `down` and `up` too, as on a ViT; on a ResNet it does not.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        heads: int,
        pathways: Pathways,
        *,
        prefix: int = 0,
        bent: bool = True,
    ) -> None:
        super().__init__()
        self.prefix, self.bent = prefix, bent
        self.down, self.up = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.near = nn.Conv3d(hidden, hidden, 3, padding=1, groups=hidden)
        self.space_norm, self.time_norm = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.space = DeformableAttention(hidden, heads, pathways.space)
        self.time = DeformableAttention(hidden, heads, pathways.time)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def is_initial(self) -> bool:
        """Tell whether it gives nothing, as before training."""
        return not (torch.any(self.up.weight) or torch.any(self.up.bias))

    def forward(self, tokens_BTLD: Tensor) -> Tensor:
        """Return what is added to the tokens of clips, each clip by itself."""
        hidden_BTLA = self._bend(self.down(tokens_BTLD))
        front, patches_BTPA = hidden_BTLA.tensor_split([self.prefix], dim=2)
        moved_BATGG = self.near(volume_of(patches_BTPA))
        patches_BTPA = patches_BTPA + moved_BATGG.flatten(3).permute(0, 2, 3, 1)
        hidden_BTLA = torch.cat([front, patches_BTPA], dim=2)
        in_space = hidden_BTLA + self.space(self.space_norm(hidden_BTLA), self.prefix)
        along_time = hidden_BTLA + self.time(self.time_norm(hidden_BTLA), self.prefix)
        return self._bend(self.up(F.gelu((in_space + along_time) / 2)))

    def _bend(self, tokens: Tensor) -> Tensor:
        return F.gelu(tokens) if self.bent else tokens


class D2stBlock(nn.Module):
    """A frozen block or stage, and the adapter behind it.

    Args:
        block: The frozen block; its weights stay its tower's.
        adapter: Of the width that the block gives.
    """

    across_clips = False
    reads_text = False

    def __init__(self, block: Block, adapter: D2stAdapter) -> None:
        super().__init__()
        self.block, self.adapter = block, adapter

    def is_initial(self) -> bool:
        """Tell whether it computes what the frozen block computes."""
        return self.adapter.is_initial()

    def forward(self, tokens_BTLD: Tensor, view: BlockView) -> Tensor:  # noqa: ARG002
        """Run it; clips do not see each other. Returns tokens_BTLD."""
        run_NLD = self.block.run(tokens_BTLD.flatten(0, 1))
        run_BTLD = run_NLD.unflatten(0, tokens_BTLD.shape[:2])
        return run_BTLD + self.adapter(run_BTLD)


def volume_of(patches_BTPA: Tensor) -> Tensor:
    """Lay the patches of clips out as volumes [B, A, T, G, G]."""
    map_NAGG = square_map(patches_BTPA.flatten(0, 1))
    return map_NAGG.unflatten(0, patches_BTPA.shape[:2]).transpose(1, 2)
