"""AIM: the frozen attention runs once more along time (arXiv 2302.03024; specs/methods-1, 4).

Dimensions: B clips, T frames, L tokens, R read tokens, D width, H heads, E width of a head.
"""

from torch import Tensor, nn

from model.adapters.bottleneck import Bottleneck
from model.backbones import blocks
from model.backbones.blocks import FrozenBlock
from model.folding import in_turn

ALL = slice(None)  # tokens read from a block: all, or for the last block the class token alone


class AimBlock(nn.Module):
    """A frozen block adapted in time, in space and beside its MLP.

    Args:
        block: The frozen block; its weights stay its tower's.
        width: Token width D.
        ratio: Hidden width of the adapters as a fraction of D.
        joint_scale: Weight of the adapter beside the MLP.
    """

    def __init__(self, block: FrozenBlock, width: int, ratio: float, joint_scale: float) -> None:
        super().__init__()
        self.block = block
        self.time = Bottleneck(width, ratio)
        self.space = Bottleneck(width, ratio)
        self.joint = Bottleneck(width, ratio)
        self.joint_scale = joint_scale
        self.takes_heads = False  # whether adapters of attention have its projection in them
        self.joint_inside = False  # whether the MLP has the adapter beside it in it

    def fold(self) -> None:
        """Multiply into each other what no activation parts: for inference, the same tokens.

        The tower's block changes with it, and can be used by this block alone.
        """
        projection = self.block.projection()
        if projection is not None and not self.takes_heads:
            self.takes_heads = True
            for adapter in self.behind_attention():
                adapter.down = in_turn(projection, adapter.down)
        if not self.joint_inside:
            beside = (self.joint.down, self.joint.up)
            self.joint_inside = self.block.widen(beside, self.joint_scale)

    def behind_attention(self) -> tuple[Bottleneck, ...]:
        """List the adapters that alone read what attention gives."""
        return (self.time,)

    def update(self, adapter: Bottleneck, attended_BHLE: Tensor) -> Tensor:
        """Turn attended heads into one of those adapters' update [B, L, D]."""
        if self.takes_heads:
            return adapter(blocks.join_heads(attended_BHLE))
        return adapter(self.block.merge(attended_BHLE))

    def across_frames(self, tokens_BTLD: Tensor, reads: slice = ALL) -> Tensor:
        """Attend in time, then in space.

        Args:
            tokens_BTLD: The block's input.
            reads: Which tokens anybody reads of the block; the others are left out where they
                are of no use any more.

        Returns:
            tokens_BTRD.
        """
        # Linear maps of transposed tokens are slow, and round otherwise in bfloat16: one clip alone
        # would stay a view here, and get other scores than in a batch.
        normed_BLTD = self.block.norm_attention(tokens_BTLD).transpose(1, 2).contiguous()
        attended_NHTE = blocks.attended(self.block, normed_BLTD.flatten(0, 1))
        update_NTD = self.update(self.time, attended_NHTE)
        tokens_BTLD = tokens_BTLD + update_NTD.unflatten(0, normed_BLTD.shape[:2]).transpose(1, 2)
        normed_NLD = self.block.norm_attention(tokens_BTLD).flatten(0, 1)
        space_NRD = blocks.attention(self.block, normed_NLD, reads=reads)
        space_BTRD = space_NRD.unflatten(0, tokens_BTLD.shape[:2])
        return tokens_BTLD[:, :, reads] + space_BTRD + self.space(space_BTRD)

    def per_token(self, tokens_BTLD: Tensor) -> Tensor:
        """Apply the MLP and the adapter beside it; both read the same normed tokens."""
        normed_BTLD = self.block.norm_mlp(tokens_BTLD)
        tokens_BTLD = tokens_BTLD + self.block.mlp(normed_BTLD)
        if self.joint_inside:
            return tokens_BTLD
        return tokens_BTLD + self.joint_scale * self.joint(normed_BTLD)

    def forward(self, tokens_BTLD: Tensor, reads: slice = ALL) -> Tensor:
        """Run the adapted block; clips do not see each other. Returns tokens_BTRD."""
        return self.per_token(self.across_frames(tokens_BTLD, reads))
