"""Bottleneck adapter: the one trained part that every adapted block is built from."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Bottleneck(nn.Module):
    """Down-project, exact GELU, up-project (model/papers/aim.md). Starts as zero.

    Args:
        width: Token width D of the block it sits in.
        ratio: Hidden width as a fraction of `width`.
        zero_init: False keeps PyTorch's random start of the up-projection, as the released
            Task-Adapter does for its task adapter alone.
        droppable: Whether training may leave its update out.
    """

    def __init__(
        self, width: int, ratio: float, *, zero_init: bool = True, droppable: bool = True
    ) -> None:
        super().__init__()
        self.droppable = droppable
        hidden = int(width * ratio)
        # Both act in training mode alone, and are set by who trains.
        self.dropout = 0.0  # of the hidden values
        self.drop_path = 0.0  # chance of a pass without the update (arXiv 1603.09382, section 3)
        self.down = nn.Linear(width, hidden)
        self.up = nn.Linear(hidden, width)
        if zero_init:
            nn.init.zeros_(self.up.weight)
            nn.init.zeros_(self.up.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (..., D) to an update (..., D)."""
        hidden = F.dropout(F.gelu(self.down(tokens)), self.dropout, self.training)
        update: Tensor = self.up(hidden)
        if not self.training or not self.drop_path:
            return update
        return update * F.dropout(update.new_ones(1), self.drop_path)  # all of it or nothing

    def is_initial(self) -> bool:
        """Tell whether it is the zero function, as before training."""
        return not (torch.any(self.up.weight) or torch.any(self.up.bias))
