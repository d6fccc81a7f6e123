"""Order adapter: attention across the stages of one class (model/papers/task_adapter.md).

Dimensions: N classes, A stages, L text tokens, D width.
"""

from torch import Tensor, nn

from model.adapters.bottleneck import Bottleneck
from model.backbones.attention import attention
from model.slots import TransformerBlock


class OrderBlock(nn.Module):
    """A frozen text block in which the stages of one class also attend to each other.

    Args:
        block: The frozen block; its weights stay its tower's.
        width: Token width D.
        ratio: Hidden width of the adapter as a fraction of D.
    """

    def __init__(self, block: TransformerBlock, width: int, ratio: float) -> None:
        super().__init__()
        self.block = block
        self.order = Bottleneck(width, ratio)

    def is_initial(self) -> bool:
        """Tell whether the adapter changes nothing, as before training."""
        return self.order.is_initial()

    def forward(self, tokens_NALD: Tensor, mask_LL: Tensor) -> Tensor:
        """Attend causally in each text, then across stages at each token, then the MLP."""
        classes, stages, length, _ = tokens_NALD.shape
        normed = self.block.norm_attention(tokens_NALD).flatten(0, 1)
        in_text = attention(self.block, normed, mask_LL)
        tokens_NALD = tokens_NALD + in_text.unflatten(0, (classes, stages))
        normed = self.block.norm_attention(tokens_NALD).transpose(1, 2).contiguous().flatten(0, 1)
        across = attention(self.block, normed, in_space=False)  # one class a row
        across_NALD = across.unflatten(0, (classes, length)).transpose(1, 2)
        tokens_NALD = tokens_NALD + self.order(across_NALD)
        return tokens_NALD + self.block.mlp(self.block.norm_mlp(tokens_NALD))
