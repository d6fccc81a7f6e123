"""AIM: the frozen attention runs once more along time (arXiv 2302.03024; model/papers/aim.md).

Dimensions: B clips, T frames, L tokens, R read tokens, D width.
"""

from torch import Tensor, nn

from model.adapters.bottleneck import Bottleneck
from model.backbones.attention import attention
from model.slots import BlockView, TransformerBlock

ALL = slice(None)
CLASS_TOKEN = slice(0, 1)


class AimBlock(nn.Module):
    """A frozen block adapted in time, in space and beside its MLP.

    Args:
        block: The frozen block; its weights stay its tower's.
        width: Token width D.
        ratio: Hidden width of the adapters as a fraction of D.
        joint_scale: Weight of the adapter beside the MLP.
        reads: The tokens R that anybody reads of the block: all, or for the last one the class
            token alone.
    """

    across_clips, reads_text = False, False

    def __init__(
        self,
        block: TransformerBlock,
        width: int,
        ratio: float,
        joint_scale: float,
        reads: slice = ALL,
    ) -> None:
        super().__init__()
        self.block = block
        self.time = Bottleneck(width, ratio)
        self.space = Bottleneck(width, ratio, droppable=False)
        self.joint = Bottleneck(width, ratio)
        self.joint_scale = joint_scale
        self.reads = reads

    def is_initial(self) -> bool:
        """Tell whether no adapter changes what the frozen block computes."""
        return all(adapter.is_initial() for adapter in (self.time, self.space, self.joint))

    def forward(self, tokens_BTLD: Tensor, view: BlockView) -> Tensor:  # noqa: ARG002
        """Run the block; clips do not see each other. Returns tokens_BTRD."""
        tokens_BTLD = tokens_BTLD + along_time(self.block, self.time, tokens_BTLD)
        tokens_BTRD = in_space(self.block, self.space, tokens_BTLD, self.reads)
        return beside_mlp(self.block, self.joint, self.joint_scale, tokens_BTRD)


def along_time(block: TransformerBlock, adapter: Bottleneck, tokens_BTLD: Tensor) -> Tensor:
    """Let each token of a clip attend to itself in the other frames; returns update_BTLD."""
    # Linear maps of transposed tokens are slow, and round otherwise in bfloat16: one clip alone
    # would stay a view here, and get other scores than in a batch.
    normed_BLTD = block.norm_attention(tokens_BTLD).transpose(1, 2).contiguous()
    update_NTD = adapter(attention(block, normed_BLTD.flatten(0, 1), in_space=False))
    return update_NTD.unflatten(0, normed_BLTD.shape[:2]).transpose(1, 2)


def in_space(
    block: TransformerBlock, adapter: Bottleneck, tokens_BTLD: Tensor, reads: slice = ALL
) -> Tensor:
    """Let the tokens of each frame attend to each other; returns tokens_BTRD with the update."""
    normed_NLD = block.norm_attention(tokens_BTLD).flatten(0, 1)
    space_NRD = attention(block, normed_NLD, reads=reads)
    space_BTRD = space_NRD.unflatten(0, tokens_BTLD.shape[:2])
    return tokens_BTLD[:, :, reads] + space_BTRD + adapter(space_BTRD)


def beside_mlp(
    block: TransformerBlock, adapter: Bottleneck, scale: float, tokens_BTRD: Tensor
) -> Tensor:
    """Apply the MLP and an adapter that reads the same normed tokens; returns tokens_BTRD."""
    normed_BTRD = block.norm_mlp(tokens_BTRD)
    return tokens_BTRD + block.mlp(normed_BTRD) + scale * adapter(normed_BTRD)
