"""Random views of pictures, drawn in batches on the device that holds the pictures.

Dimensions: N pictures held, B views, C channels (RGB), H = W pixels of a held picture, S of a view.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2.functional import adjust_hue

GREY = (0.299, 0.587, 0.114)  # luma weights of ITU-R BT.601


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """How strongly views differ from their pictures."""

    min_area: float = 0.25  # smallest crop, share of the picture
    max_area: float = 1.0  # largest crop
    max_stretch: float = 4 / 3  # largest ratio of a crop's sides
    mirror: float = 0.5  # chance of a view with left and right exchanged
    jitter: float = 0.4  # brightness, contrast and saturation, each in 1 +- jitter
    grey: float = 0.1  # chance of a view without colour
    hue: float = 0.0  # largest turn of the colours, share of their circle
    swap: float = 0.0  # chance of a view with its colour channels rolled
    paste: float = 0.0  # chance of a rectangle of another view pasted in
    mixup: float = 0.25  # chance of a view being blended with another


def draw_views(
    pictures_NHWC: Tensor,
    picks_B: Tensor,
    size: int,
    generator: torch.Generator,
    strength: Augmentation,
) -> Tensor:
    """Crop, flip, recolour, paste and blend.

    Args:
        pictures_NHWC: uint8 pictures, on any device.
        picks_B: Which picture each view is of.
        size: Side S of the views, pixels.
        generator: A CPU generator; every random number comes from it.
        strength: How strongly.

    Returns:
        views_BCSS: uint8, on the pictures' device.
    """
    device = pictures_NHWC.device
    count = len(picks_B)
    pixels = pictures_NHWC[picks_B.to(device)].permute(0, 3, 1, 2).float() / 255
    views = cut(pixels, draw_crops(count, generator, strength).to(device), size)
    views = recolour(views, generator, strength)
    views = _paste(views, generator, strength)
    views = _mixup(views, generator, strength)
    return (views.clamp(0, 1) * 255).round().to(torch.uint8)


def draw_crops(count: int, generator: torch.Generator, strength: Augmentation) -> Tensor:
    """Draw crops inside the picture, some of them mirrored, as affine maps [B, 2, 3]."""
    draw = torch.rand(5, count, generator=generator)
    area = strength.min_area + (strength.max_area - strength.min_area) * draw[0]
    stretch = torch.exp((2 * draw[1] - 1) * math.log(strength.max_stretch) / 2)
    width = (area.sqrt() * stretch).clamp(max=1)
    height = (area.sqrt() / stretch).clamp(max=1)
    flip = torch.where(draw[4] < strength.mirror, -1.0, 1.0)
    affine = torch.zeros(count, 2, 3)
    affine[:, 0, 0], affine[:, 1, 1] = width * flip, height
    affine[:, 0, 2] = (2 * draw[2] - 1) * (1 - width)
    affine[:, 1, 2] = (2 * draw[3] - 1) * (1 - height)
    return affine


def cut(pixels_BCHW: Tensor, affine_B23: Tensor, size: int) -> Tensor:
    """Cut a crop out of each picture and scale it: views [B, C, S, S]."""
    grid = F.affine_grid(affine_B23, [len(affine_B23), 3, size, size], align_corners=False)
    return F.grid_sample(pixels_BCHW, grid, padding_mode="reflection", align_corners=False)


def recolour(views: Tensor, generator: torch.Generator, strength: Augmentation) -> Tensor:
    """Change brightness, contrast, saturation, hue of views [B, C, H, W] with values in [0, 1]."""
    draw = torch.rand(5, len(views), 1, 1, 1, generator=generator).to(views.device)
    views = torch.where(draw[4] < strength.swap, views.roll(1, dims=1), views)
    bright, contrast, saturation = 1 + strength.jitter * (2 * draw[:3] - 1)
    views = views * bright
    weights = torch.tensor(GREY, device=views.device).view(1, 3, 1, 1)
    grey = (views * weights).sum(dim=1, keepdim=True)
    saturation = torch.where(draw[3] < strength.grey, 0.0, saturation)
    views = grey + (views - grey) * saturation
    mean = grey.mean(dim=(1, 2, 3), keepdim=True)
    views = mean + (views - mean) * contrast
    return _turn(views, generator, strength.hue) if strength.hue else views


def _turn(views: Tensor, generator: torch.Generator, most: float) -> Tensor:
    """Turn the colours of each view by a share of their circle, at most `most` either way."""
    turns = (most * (2 * torch.rand(len(views), generator=generator) - 1)).tolist()
    turned = [adjust_hue(view, turn) for view, turn in zip(views.clamp(0, 1), turns, strict=True)]
    return torch.stack(turned)


def _paste(views: Tensor, generator: torch.Generator, strength: Augmentation) -> Tensor:
    """Replace a rectangle by the same place of another view (CutMix, arXiv 1905.04899)."""
    draw = torch.rand(5, len(views), generator=generator).to(views.device)
    others = torch.randperm(len(views), generator=generator).to(views.device)
    size = views.shape[-1]
    high, wide = 0.3 + 0.6 * draw[0], 0.3 + 0.6 * draw[1]
    top, left = draw[2] * (1 - high), draw[3] * (1 - wide)
    at = (torch.arange(size, device=views.device) + 0.5) / size
    rows = (at >= top[:, None]) & (at < (top + high)[:, None])
    columns = (at >= left[:, None]) & (at < (left + wide)[:, None])
    chosen = (draw[4] < strength.paste)[:, None, None]
    inside = (rows[:, :, None] & columns[:, None, :] & chosen)[:, None]
    return torch.where(inside, views[others], views)


def _mixup(views: Tensor, generator: torch.Generator, strength: Augmentation) -> Tensor:
    draw = torch.rand(2, len(views), 1, 1, 1, generator=generator).to(views.device)
    others = torch.randperm(len(views), generator=generator).to(views.device)
    share = torch.where(draw[0] < strength.mixup, 0.5 * draw[1], 0.0)
    return views * (1 - share) + views[others] * share
