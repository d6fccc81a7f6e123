"""Activations of MLPs in fewer passes over memory, for inference alone.

GELU writes over what it reads: on a processor new memory costs more than GELU does. QuickGELU is
SiLU with its factor in the weights: x * sigmoid(a x) = SiLU(a x) / a.

Dimensions: B sequences, L tokens, D width.
"""

import torch
from torch import Tensor, nn

from model.encoder import VideoEncoder

QUICK_GELU = 1.702  # its factor in front of the sigmoid


class InPlaceGelu(nn.Module):
    """GELU that writes over what it reads: gradients of its input pass, as saliency needs them."""

    def forward(self, hidden_BLD: Tensor) -> Tensor:
        """Apply it."""
        written: Tensor = torch.ops.aten.gelu_(hidden_BLD)
        return written


@torch.no_grad()
def fuse_activations(video: VideoEncoder) -> None:
    """Change the MLPs of an image tower in place: the same tokens, faster.

    Afterwards the tower's state dict is no checkpoint's any more, and nothing can be trained.
    """
    for module in video.tower.model.modules():
        # open_clip's, by name: to import it takes seconds, and towers of our own need none of it
        if type(getattr(module, "gelu", None)).__name__ == "QuickGELU":
            module.c_fc.weight.mul_(QUICK_GELU)
            module.c_fc.bias.mul_(QUICK_GELU)
            module.c_proj.weight.div_(QUICK_GELU)
            module.gelu = nn.SiLU(inplace=True)
        for name, activation in list(module.named_children()):
            if type(activation) is nn.GELU and activation.approximate == "none":
                setattr(module, name, InPlaceGelu())
