"""Linear maps that are one, for inference: fewer products, the same values but for rounding.

Dimensions: I inputs, O outputs.
"""

import torch
from torch import Tensor, nn


def in_turn(first: nn.Linear, second: nn.Linear) -> nn.Linear:
    """Return second(first(x))."""
    second_OI = second.weight.double()
    weight_OI = second_OI @ first.weight.double()
    return linear(weight_OI, second_OI @ bias_of(first).double() + bias_of(second), second.weight)


def side_by_side(
    one: tuple[nn.Linear, nn.Linear], other: tuple[nn.Linear, nn.Linear], scale: float
) -> tuple[nn.Linear, nn.Linear]:
    """Return two maps that do what two pairs do, with the same activation in between.

    That is one[1](f(one[0](x))) + scale * other[1](f(other[0](x))), for any f.
    """
    first, second = one
    down, up = other
    wide_OI = torch.cat([first.weight, down.weight])
    sum_OI = torch.cat([second.weight, scale * up.weight], dim=1)
    return (
        linear(wide_OI, torch.cat([bias_of(first), bias_of(down)]), first.weight),
        linear(sum_OI, bias_of(second) + scale * bias_of(up), second.weight),
    )


def bias_of(module: nn.Linear) -> Tensor:
    """Return the bias, zeros where there is none."""
    return module.weight.new_zeros(module.out_features) if module.bias is None else module.bias


def linear(weight_OI: Tensor, bias_O: Tensor, like: Tensor) -> nn.Linear:
    """Return a linear map that is not trained, of another tensor's type and device."""
    outputs, inputs = weight_OI.shape
    made = nn.utils.skip_init(nn.Linear, inputs, outputs, device=like.device, dtype=like.dtype)
    with torch.no_grad():
        made.weight.copy_(weight_OI)
        made.bias.copy_(bias_O)
    return made.requires_grad_(False)
