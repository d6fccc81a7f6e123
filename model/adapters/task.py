"""Task-Adapter: attention across the videos of a task (model/papers/task_adapter.md).

Dimensions: B clips, T frames, L tokens, R read tokens, D width.
"""

from torch import Tensor, nn

from model.adapters.aim import ALL, along_time, beside_mlp, in_space
from model.adapters.bottleneck import Bottleneck
from model.slots import BlockView, TransformerBlock


class TaskBlock(nn.Module):
    """A frozen block adapted in time, in space, across clips and beside its MLP.

    Args:
        block: The frozen block; its weights stay its tower's.
        width: Token width D.
        ratio: Hidden width of the adapters as a fraction of D.
        zero_init: False starts the task adapter at random, as released.
        reads: The tokens R that anybody reads of the block.
    """

    across_clips, reads_text = True, False

    def __init__(
        self,
        block: TransformerBlock,
        width: int,
        ratio: float,
        *,
        zero_init: bool = True,
        reads: slice = ALL,
    ) -> None:
        super().__init__()
        self.block = block
        self.time = Bottleneck(width, ratio)
        self.space = Bottleneck(width, ratio)
        self.joint = Bottleneck(width, ratio)
        self.task = Bottleneck(width, ratio, zero_init=zero_init)
        self.reads = reads

    def is_initial(self) -> bool:
        """Tell whether no adapter changes what the frozen block computes."""
        adapters = (self.time, self.space, self.joint, self.task)
        return all(adapter.is_initial() for adapter in adapters)

    def forward(self, tokens_BTLD: Tensor, view: BlockView) -> Tensor:
        """Run the block; the view says which clips attend to which. Returns tokens_BTRD."""
        tokens_BTLD = tokens_BTLD + along_time(self.block, self.time, tokens_BTLD)
        tokens_BTRD = in_space(self.block, self.space, tokens_BTLD, self.reads)
        attended_BTRD = view.attend(self.block, tokens_BTRD)
        if attended_BTRD is not None:
            tokens_BTRD = tokens_BTRD + self.task(attended_BTRD)
        return beside_mlp(self.block, self.joint, 1.0, tokens_BTRD)
