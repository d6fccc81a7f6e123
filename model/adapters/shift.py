"""Blocks whose patches look a frame ahead and back (ActionCLIP; model/papers/actionclip.md).

Dimensions: B clips, T frames, L tokens (the class token, then patches), D width.
"""

import torch
from torch import Tensor, nn

from model.backbones.attention import forward
from model.slots import BlockView, TransformerBlock


class ShiftBlock(nn.Module):
    """A block that is given patches with channels of the frames beside theirs; no weights.

    Args:
        block: The block; its weights stay its tower's.
        ratio: Share of the channels that comes from each of the two frames beside.
    """

    across_clips = reads_text = False

    def __init__(self, block: TransformerBlock, ratio: float) -> None:
        super().__init__()
        self.block, self.ratio = block, ratio

    def is_initial(self) -> bool:
        """Tell that it never computes what the block alone computes."""
        return False

    def forward(self, tokens_BTLD: Tensor, view: BlockView) -> Tensor:  # noqa: ARG002
        """Run the block over moved tokens; clips do not see each other. Returns tokens_BTLD."""
        moved_NLD = shifted(tokens_BTLD, self.ratio).flatten(0, 1)
        return forward(self.block, moved_NLD).unflatten(0, tokens_BTLD.shape[:2])


def shifted(tokens_BTLD: Tensor, ratio: float) -> Tensor:
    """Take channels of patches from other frames, 0 where there is none; the class token stays.

    The first share is that of the next frame, the second that of the frame before.
    """
    fold = int(tokens_BTLD.shape[-1] * ratio)
    patches_BTPD = tokens_BTLD[:, :, 1:]
    ahead, back, rest = patches_BTPD.tensor_split([fold, 2 * fold], dim=-1)
    none = torch.zeros_like(ahead[:, :1])
    ahead = torch.cat([ahead[:, 1:], none], dim=1)
    back = torch.cat([none, back[:, :-1]], dim=1)
    moved_BTPD = torch.cat([ahead, back, rest], dim=-1)
    return torch.cat([tokens_BTLD[:, :, :1], moved_BTPD], dim=2)
