"""Clips made of one picture by a moving camera: pans, zooms and small shakes.

A picture so made is an unlimited source of scenes for a video student: what differs between frames
is the camera alone.

Dimensions: T frames, C colours (RGB), H W pixels of the picture, S of a view.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from training.features.augmentation import Augmentation, cut, draw_crops, recolour

HELD = 224  # pixels of the short side that a picture is cut from


@dataclass(frozen=True, slots=True, kw_only=True)
class Camera:
    """How strongly the camera moves; shares of the view's half side."""

    still: float = 0.15  # chance of no movement at all
    pan: float = 0.35  # largest way from the first frame to the last
    zoom: float = 0.35  # largest change of size, in both directions, as a logarithm
    shake: float = 0.02  # deviation of each frame


def read_picture(file: Path) -> NDArray[np.uint8]:
    """Read a picture, its short side scaled to at most HELD.

    Raises:
        OSError: It cannot be read.
    """
    with Image.open(file) as opened:
        picture = opened.convert("RGB")
    shrink = HELD / min(picture.size)
    if shrink < 1:
        wide, high = (round(length * shrink) for length in picture.size)
        picture = picture.resize((wide, high), Image.Resampling.BICUBIC)
    return np.asarray(picture)


def move_camera(
    picture_HWC: NDArray[np.uint8],
    frames: int,
    size: int,
    generator: torch.Generator,
    camera: Camera,
    strength: Augmentation,
) -> Tensor:
    """Make a clip of a picture.

    Args:
        picture_HWC: RGB.
        frames: T.
        size: S.
        generator: A CPU generator; every random number comes from it.
        camera: How it moves.
        strength: Of the crop and the colours, drawn once a clip.

    Returns:
        view_TCSS: uint8.
    """
    pixels_CHW = torch.from_numpy(picture_HWC.copy()).permute(2, 0, 1).float() / 255
    affine_T23 = camera_path(frames, generator, camera, strength, pixels_CHW.shape[1:])
    view_TCSS = cut(pixels_CHW.expand(frames, -1, -1, -1), affine_T23, size)
    tall_1CHS = view_TCSS.transpose(0, 1).flatten(1, 2)[None]
    tall_1CHS = recolour(tall_1CHS, generator, strength)
    view_TCSS = tall_1CHS[0].unflatten(1, (frames, size)).transpose(0, 1)
    return (view_TCSS.clamp(0, 1) * 255).round().to(torch.uint8)


def camera_path(
    frames: int,
    generator: torch.Generator,
    camera: Camera,
    strength: Augmentation,
    shape: torch.Size | tuple[int, int],
) -> Tensor:
    """Draw the windows [T, 2, 3] that a camera sees, as affine maps; they stay square."""
    high, wide = shape
    affine_23 = draw_crops(1, generator, strength)[0]
    short = min(high, wide)
    draw = torch.rand(4, generator=generator)
    moves = float(draw[0] >= camera.still)
    way_2 = moves * camera.pan * (2 * torch.rand(2, generator=generator) - 1)
    zoom = moves * camera.zoom * (2 * float(draw[1]) - 1)
    time_T = torch.linspace(-0.5, 0.5, frames)
    bend = 0.5 + float(draw[2])  # a camera seldom moves evenly
    time_T = time_T.sign() * 0.5 * (2 * time_T.abs()) ** bend
    shake_2T = moves * camera.shake * torch.randn(2, frames, generator=generator)
    path_T23 = affine_23.expand(frames, -1, -1).clone()
    grown_T = torch.exp(zoom * time_T)
    path_T23[:, 0, 0] *= grown_T * short / wide
    path_T23[:, 1, 1] *= grown_T * short / high
    path_T23[:, :, :2] /= path_T23[:, :, :2].abs().amax((1, 2), keepdim=True).clamp(min=1)
    for axis, length in ((0, wide), (1, high)):
        room = (1 - path_T23[:, axis, axis].abs()).clamp(min=0)
        centre = affine_23[axis, 2] + (way_2[axis] * time_T + shake_2T[axis]) * short / length
        path_T23[:, axis, 2] = centre.clamp(-room, room)
    return path_T23
