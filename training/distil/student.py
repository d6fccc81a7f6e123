"""What a student is asked: the teacher's maps, its hidden layer as features, and its logits.

Dimensions: B clips, T frames, H W cells, P cells of a map, S pixels, C channels, E feature width,
K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.distil.batches import Batch
from training.distil.space import Space
from training.distil.teacher import GRID, INNER, INNER_GRID, Reading

SCALE_FLOOR = 0.1  # share of the mean channel variance added to each channel's own


class VideoNetwork(Protocol):
    """A student's network."""

    def states(self, pixels_BTCHW: Tensor) -> list[Tensor]:
        """Return cells [B, T, H, W, C] at several depths, and at last the map."""

    def read(self, map_BTHWM: Tensor) -> Tensor:
        """Return features_BTE of maps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """Of the parts of the loss."""

    angle: float = 1.0  # 1 - cosine of clip features
    distance: float = 0.5  # squared distance of clip features / variance
    logits: float = 0.5  # Kullback-Leibler divergence
    maps: float = 1.0  # smooth L1 of the last map
    inner: float = 0.5  # smooth L1 of cells in the middle
    temperature: float = 3.0  # divides logits


class Student(nn.Module):
    """A network with a head that is thrown away afterwards.

    Args:
        network: Learns.
        inner_state: Which of its states imitates the teacher's inner cells.
        inner_width: Channels of that state.
        scales: Of inner cells and maps; see `measure_scales`.
    """

    def __init__(
        self,
        network: nn.Module,
        inner_state: int,
        inner_width: int,
        scales: Sequence[Tensor],
    ) -> None:
        super().__init__()
        self.network = network
        self.inner_state = inner_state
        self.inner = nn.Linear(inner_width, INNER)
        self.scales = nn.ParameterList(nn.Parameter(s, requires_grad=False) for s in scales)

    def forward(
        self, pixels_BTCHW: Tensor, batch: Batch, space: Space, reading: Reading, weights: Weights
    ) -> dict[str, Tensor]:
        """Return the parts of the loss, weighed.

        Args:
            pixels_BTCHW: Normalised, of the frames in `batch`.
            batch: The teacher's answers.
            space: Where features live.
            reading: The teacher's last layers.
            weights: Of the parts.
        """
        network: VideoNetwork = self.network  # type: ignore[assignment]
        states = network.states(pixels_BTCHW)
        features_BE = network.read(states[-1]).mean(1)
        inner = _resized(self.inner(states[self.inner_state]), INNER_GRID, smooth=True)
        maps = _resized(states[-1], GRID, smooth=False)
        wanted_BE = space.features(batch.hidden_BC)
        distance = (features_BE - wanted_BE).square().sum(1).mean() / space.variance
        angle = 1 - F.cosine_similarity(features_BE, wanted_BE, dim=1).mean()
        heat = weights.temperature
        said_BK = (space.logits(features_BE) / heat).log_softmax(1)
        true_BK = (reading.logits(batch.hidden_BC) / heat).log_softmax(1)
        divergence = F.kl_div(said_BK, true_BK, reduction="batchmean", log_target=True)
        return {
            "angle": weights.angle * angle,
            "distance": weights.distance * distance,
            "logits": weights.logits * divergence,
            "maps": weights.maps * _error(maps, batch.maps_BTPC, self.scales[1]),
            "inner": weights.inner * _error(inner, batch.inner_BTPC, self.scales[0]),
        }


def measure_scales(batch: Batch) -> list[Tensor]:
    """Return the deviation of each channel, of inner cells and of maps: a large error."""
    spreads = [part.float().flatten(0, 2).var(0) for part in (batch.inner_BTPC, batch.maps_BTPC)]
    return [(spread + SCALE_FLOOR * spread.mean()).sqrt() for spread in spreads]


def normalised(
    frames_BTSSC: Tensor, size: int, mean: Sequence[float], std: Sequence[float]
) -> Tensor:
    """Turn uint8 frames into pixels_BTCHW of `size` as the student's network takes them."""
    pixels = frames_BTSSC.float().div_(255).sub_(torch.tensor(mean)).div_(torch.tensor(std))
    pixels_NCSS = pixels.flatten(0, 1).permute(0, 3, 1, 2)
    if size != pixels_NCSS.shape[-1]:
        pixels_NCSS = F.interpolate(pixels_NCSS, (size, size), mode="bilinear", antialias=True)
    return pixels_NCSS.unflatten(0, frames_BTSSC.shape[:2])


def _resized(cells_BTHWC: Tensor, side: int, *, smooth: bool) -> Tensor:
    """Bring cells to the teacher's grid: [B, T, P, C]."""
    cells_NCHW = cells_BTHWC.flatten(0, 1).permute(0, 3, 1, 2)
    if smooth:
        grid = F.interpolate(cells_NCHW, (side, side), mode="bilinear", align_corners=False)
    else:
        grid = F.adaptive_avg_pool2d(cells_NCHW, side)
    return grid.flatten(2).transpose(1, 2).unflatten(0, cells_BTHWC.shape[:2])


def _error(got_BTPC: Tensor, wanted_BTPC: Tensor, scale_C: Tensor) -> Tensor:
    error = (got_BTPC - wanted_BTPC.float()) / scale_C
    return F.smooth_l1_loss(error, torch.zeros_like(error))
