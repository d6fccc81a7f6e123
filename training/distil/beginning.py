"""How a student begins: scales, the space of features, and weights that fit the teacher's cells.

Dimensions: N frames, C channels, H W cells, M channels of the last map.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.backbones.packaged.causal import STEM, STRIDE, CausalBlock, CausalNetwork, padded
from training.distil.imitation import Lesson, channel_scale
from training.distil.space import Space, fit_space
from training.distil.teacher import VideoTeacher
from training.distil.views import Views
from training.errors import InputError

MEASURED = 10**9  # numbers of batches that no step sees begin here
SPACE_BATCHES, CELL_BATCHES = 40, 5
EVERY = 3  # which frames' cells are looked at
LEAKS = (0.1, 0.02, 0.0)  # slopes where ReLU6 is flat, so that nothing stays dead
ITERATIONS = 60  # of L-BFGS, for each slope
EIGEN_FLOOR = 0.01  # share of the mean eigenvalue added to each


def begin(network: CausalNetwork, teacher: VideoTeacher, views: Views, batches: int) -> Lesson:
    """Set the weights that can be set by looking; return the lesson.

    Args:
        network: Fresh.
        teacher: Is looked at.
        views: Where batches come from.
        batches: How many of them the space is found in.

    Raises:
        InputError: The network's cells are not shaped as the teacher's, or there are too few clips
            for the width of its features.
    """
    pixels = torch.cat([views.draw(MEASURED + number) for number in range(CELL_BATCHES)])
    seen = teacher(pixels)
    frames = pixels.shape[1]
    check_shapes(network, pixels[:1], seen)
    changes = [seen[0]]
    for block, before, after in zip(network.blocks, seen, seen[1:], strict=False):
        changes.append(after - before if block.skip is None else after)
        assert isinstance(block, CausalBlock)
        start_block(block, before, changes[-1], frames)
    lesson = Lesson(
        scales=[channel_scale(one) for one in (*changes, seen[-1])],
        state_scales=[channel_scale(one) for one in seen],
        space=_space(teacher, views, batches, network.features.out_features),
        teacher=teacher,
    )
    some = pixels.flatten(0, 1)[::EVERY]
    for layer, cells, wanted, scale in (
        (network.stem, padded(some, STEM, STRIDE), seen[0][::EVERY], lesson.scales[0]),
        (network.project, seen[-2], seen[-1], lesson.scales[-1]),
    ):
        settle(layer, cells, wanted, scale)
    return lesson


def check_shapes(network: CausalNetwork, pixels_BTCSS: Tensor, seen: Sequence[Tensor]) -> None:
    """Compare the cells of the network and of the teacher.

    Raises:
        InputError: They differ.
    """
    with torch.no_grad():
        own = network.states(pixels_BTCSS)
    shapes = [[tuple(one.shape[1:]) for one in states] for states in (own, seen)]
    if shapes[0] != shapes[1]:
        raise InputError(
            f"The student's cells are {shapes[0]}, the teacher's {shapes[1]}; give the student "
            "blocks of the teacher's widths and strides."
        )


@torch.no_grad()
def start_block(block: CausalBlock, x_NCHW: Tensor, change_NCHW: Tensor, frames: int) -> None:
    """Let a block see independent directions of its cells, and give changes of the right size."""
    flat_CX = x_NCHW[::EVERY].transpose(0, 1).flatten(1)
    mean_C = flat_CX.mean(1)
    centred_CX = flat_CX - mean_C[:, None]
    values, vectors = torch.linalg.eigh((centred_CX @ centred_CX.T / flat_CX.shape[1]).double())
    whitening = (vectors * (values + EIGEN_FLOOR * values.mean()).rsqrt()) @ vectors.T
    inner, width = block.up.out_channels, len(mean_C)
    weight = torch.randn(inner, width) / width**0.5 @ whitening.float()
    block.up.weight.copy_(weight[:, :, None, None])
    assert block.up.bias is not None
    block.up.bias.copy_(0.5 - weight @ mean_C)
    inside, _ = block.frame(x_NCHW[: 2 * frames])
    inside = block.mixed(inside, frames)
    size = 0.3 * change_NCHW.std() / (inside.std() + 1e-3) / inner**0.5
    block.down.weight.normal_(0, float(size))
    assert block.down.bias is not None
    block.down.bias.zero_()


def settle(layer: nn.Conv2d, x_NCHW: Tensor, wanted_NCHW: Tensor, scale_C11: Tensor) -> None:
    """Fit a convolution with ReLU6 by L-BFGS."""
    layer.to(memory_format=torch.contiguous_format)
    for leak in LEAKS:
        optimizer = torch.optim.LBFGS(
            layer.parameters(), max_iter=ITERATIONS, history_size=20, line_search_fn="strong_wolfe"
        )
        optimizer.step(_closure(optimizer, layer, (x_NCHW, wanted_NCHW, scale_C11), leak))
    layer.to(memory_format=torch.channels_last)


def _closure(
    optimizer: torch.optim.LBFGS,
    layer: nn.Conv2d,
    example: tuple[Tensor, Tensor, Tensor],
    leak: float,
) -> Callable[[], float]:
    x_NCHW, wanted_NCHW, scale_C11 = example

    def closure() -> float:
        optimizer.zero_grad()
        open_NCHW = layer(x_NCHW)
        got_NCHW = (1 - leak) * F.relu6(open_NCHW) + leak * open_NCHW
        error = ((got_NCHW - wanted_NCHW) * scale_C11).square().mean()
        error.backward()
        return float(error.detach())

    return closure


def _space(teacher: VideoTeacher, views: Views, batches: int, width: int) -> Space:
    """Find the space in whole clips, in their first halves and in their last frames."""
    found = []
    for number in range(batches):
        pixels = views.draw(MEASURED + CELL_BATCHES + number)
        mean_BTM = teacher(pixels)[-1].mean((-2, -1)).unflatten(0, pixels.shape[:2])
        half = -(-pixels.shape[1] // 2)
        means = [mean_BTM.mean(1), mean_BTM[:, :half].mean(1), mean_BTM[:, -1]]
        found.append(teacher.hidden(torch.cat(means)))
    hidden_CH = torch.cat(found)
    if len(hidden_CH) <= width:
        raise InputError(
            f"Features of width {width} need more views than {len(hidden_CH)} to find their space "
            "in; give more pictures, clips or synthetic actions a step."
        )
    return fit_space(hidden_CH, width)
