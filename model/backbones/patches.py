"""The patch convolution as one matrix product over raw pixels.

Dimensions: B frames, C colours, H W pixels, G grid rows or columns, P pixels of a patch's side,
N patches, D width.
"""

from torch import Tensor, nn
from torch.nn import functional as F


class PatchProduct(nn.Module):
    """Do what normalisation and a patch convolution do, from uint8 pixels.

    Normalisation is linear, so it is part of the weights; patches do not overlap, so the
    convolution is a matrix product. Bytes are moved into place before they become floats.

    Args:
        conv: The convolution; its stride is its kernel, without padding.
        mean: Of RGB in [0, 1], [3, 1, 1].
        std: Likewise.
    """

    def __init__(self, conv: nn.Conv2d, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.patch = conv.kernel_size[0]
        weight_DCPP = conv.weight.detach().double() / std.double()
        bias_D = -(weight_DCPP * mean.double()).sum(dim=(1, 2, 3))
        if conv.bias is not None:
            bias_D = bias_D + conv.bias.detach().double()
        kernel_DK = (weight_DCPP / 255).permute(0, 2, 3, 1).flatten(1)
        self.weight = nn.Parameter(kernel_DK.to(conv.weight.dtype), requires_grad=False)
        self.bias = nn.Parameter(bias_D.to(conv.weight.dtype), requires_grad=False)

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        """Project uint8 pixels to [B, D, G, G], as the convolution would."""
        _, _, height, width = pixels_BCHW.shape
        rows, columns = height // self.patch, width // self.patch
        pixels = pixels_BCHW.unflatten(2, (rows, self.patch)).unflatten(4, (columns, self.patch))
        patches_BNK = pixels.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
        tokens_BND = F.linear(patches_BNK.to(self.weight.dtype), self.weight, self.bias)
        return tokens_BND.transpose(1, 2).unflatten(2, (rows, columns))


def foldable(conv: nn.Module) -> bool:
    """Tell whether a module is a plain convolution of patches that do not overlap."""
    return (
        isinstance(conv, nn.Conv2d)
        and conv.stride == conv.kernel_size
        and conv.kernel_size[0] == conv.kernel_size[1]
        and conv.padding == (0, 0)
        and conv.groups == 1
    )
