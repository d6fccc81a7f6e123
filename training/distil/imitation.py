"""What a student is asked: each block for what the teacher's layer gives, and all for its features.

Each block learns alone first, from the teacher's own cells in front of it (as the blocks of Li et
al., "Block-wisely supervised neural architecture search with knowledge distillation", arXiv
1911.13053): every cell of every frame is an example, so that few clips are many examples. Then the
network learns as a whole, from pixels.

Dimensions: B clips, T frames, N = B * T, C channels, H W cells, S pixels, M channels of the last
map, E feature width.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from model.backbones.packaged.causal import CausalNetwork
from training.distil.space import Space
from training.distil.teacher import VideoTeacher

FLOOR = 0.1  # share of the mean channel variance added to each channel's own
FEW_CELLS = 400  # of a frame; blocks with more of them learn from fewer clips of a batch
LEAST = 2  # clips that a block learns from
MIXTURES = 4  # of each mean map with another one
STATES, DISTANCE = 0.15, 0.5  # weights beside 1 for the angle of features


@dataclass(frozen=True, slots=True)
class Lesson:
    """What the teacher says, and how its answers are measured.

    Args:
        scales: 1 / deviation of each channel of the stem, of each layer's change, and of the map.
        state_scales: The same of the cells themselves.
        space: Where features live.
        teacher: Answers.
    """

    scales: Sequence[Tensor]
    state_scales: Sequence[Tensor]
    space: Space
    teacher: VideoTeacher

    def features(self, mean_BM: Tensor) -> Tensor:
        """Return the teacher's features_BE of mean maps."""
        return self.space.features(self.teacher.hidden(mean_BM))


def apart(
    network: CausalNetwork, pixels_BTCSS: Tensor, seen: Sequence[Tensor], lesson: Lesson
) -> Iterator[tuple[str, Tensor]]:
    """Give the error of each block on the teacher's cells, one after the other.

    Args:
        network: Learns.
        pixels_BTCSS: A batch.
        seen: What the teacher says of it.
        lesson: How that is measured.
    """
    clips, frames = pixels_BTCSS.shape[:2]
    yield "stem", _error(network.begin(pixels_BTCSS[0]), seen[0][:frames], lesson.scales[0])
    for number, (block, before, after) in enumerate(
        zip(network.blocks, seen, seen[1:], strict=False)
    ):
        few = min(clips, max(LEAST, clips * FEW_CELLS // before[0, 0].numel())) * frames
        got = block(before[:few], frames)
        yield f"block {number}", _error(got, after[:few], lesson.scales[number + 1])
    yield "map", _error(network.end(seen[-2]), seen[-1], lesson.scales[-1])


def whole(
    network: CausalNetwork, pixels_BTCSS: Tensor, seen: Sequence[Tensor], lesson: Lesson
) -> dict[str, Tensor]:
    """Return the parts of the error of the network from pixels to features, weighed."""
    shape = pixels_BTCSS.shape[:2]
    own = network.states(pixels_BTCSS)
    halves = [n for n, block in enumerate(network.config.blocks) if block.stride > 1 and n]
    states = [
        _error(own[number], seen[number], lesson.state_scales[number])
        for number in (*halves, len(own) - 2, len(own) - 1)
    ]
    got_BE = network.read(own[-1].mean((-2, -1))).unflatten(0, shape).mean(1)
    wanted_BE = lesson.features(seen[-1].mean((-2, -1)).unflatten(0, shape).mean(1))
    distance = (got_BE - wanted_BE).square().sum(1).mean() / lesson.space.variance
    return {
        "states": STATES * torch.stack(states).sum(),
        "angle": 1 - F.cosine_similarity(got_BE, wanted_BE, dim=1).mean(),
        "distance": DISTANCE * distance,
    }


def reading_error(
    network: CausalNetwork, seen: Sequence[Tensor], lesson: Lesson, generator: torch.Generator
) -> Tensor:
    """Return the error of features of the teacher's mean maps: of frames, and mixtures of them."""
    mean_NM = seen[-1].mean((-2, -1))
    mixed = [mean_NM]
    for _ in range(MIXTURES):
        share_N1 = torch.rand(len(mean_NM), 1, generator=generator)
        other = torch.randperm(len(mean_NM), generator=generator)
        mixed.append(share_N1 * mean_NM + (1 - share_N1) * mean_NM[other])
    means = torch.cat(mixed)
    wanted = lesson.features(means)
    return (network.read(means) - wanted).square().sum(1).mean() / lesson.space.variance


def channel_scale(x_NCHW: Tensor) -> Tensor:
    """Return 1 / deviation of each channel, [C, 1, 1]; a channel that hardly varies counts less."""
    variance_C = x_NCHW.var((0, 2, 3))
    scale: Tensor = (variance_C + FLOOR * variance_C.mean()).rsqrt()[:, None, None]
    return scale


def _error(got_NCHW: Tensor, wanted_NCHW: Tensor, scale_C11: Tensor) -> Tensor:
    return ((got_NCHW - wanted_NCHW) * scale_C11).square().mean()
