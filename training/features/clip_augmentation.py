"""Augmentation draws of clips: one crop, one mirroring and one colour change for all frames.

What differs between frames is motion, which a draw of its own for each frame would drown
(specs/methods-1, section 3.5); frame times are jittered inside their spans.

Dimensions: T frames, C colours (RGB), H = W pixels of the frames read, S of a view.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.compact.augmentation import Augmentation, cut, draw_crops, recolour
from training.data.datasets import LabelledClip, read_frames

VIEW_RULE = "pyav-1"  # another name when the same numbers give another view
MARGIN = 256 / 224  # side of the frames that crops are cut from / side of a view


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipAugmentation:
    """How strongly draws differ from the evaluation view."""

    min_area: float = 0.5  # smallest crop, share of the frame
    max_stretch: float = 4 / 3  # largest ratio of a crop's sides
    mirror: float = 0.5  # chance of exchanging left and right; 0 where labels tell them apart
    jitter: float = 0.3  # brightness, contrast and saturation, each in 1 +- jitter
    grey: float = 0.1  # chance of a draw without colour

    def strength(self) -> Augmentation:
        """Return the same numbers for views; views of other clips are never mixed in."""
        return Augmentation(
            min_area=self.min_area,
            max_stretch=self.max_stretch,
            mirror=self.mirror,
            jitter=self.jitter,
            grey=self.grey,
            mixup=0.0,
        )


def clip_name(clip: LabelledClip) -> str:
    """Name a clip alike wherever the data lies: as its list does, or by folder and file."""
    return clip.name or "/".join(clip.path.parts[-2:])


def read_view(
    clip: LabelledClip,
    *,
    frames: int,
    size: int,
    draw: int,
    seed: int,
    augmentation: ClipAugmentation,
) -> NDArray[np.uint8]:
    """Read one view of a clip: a function of the arguments and the file alone.

    Args:
        clip: A video or a folder of pictures.
        frames: T.
        size: S, pixels.
        draw: 0 is the view that is evaluated and served; every other number is a draw of its own.
        seed: Of all draws.
        augmentation: How strongly.

    Returns:
        view_TSSC, uint8 RGB.

    Raises:
        ClipError: the clip cannot be read.
    """
    if draw == 0:
        return read_frames(clip, frames=frames, size=size)
    digest = hashlib.sha256(f"{seed}:{draw}:{clip_name(clip)}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:16], "big"))
    frames_THWC = read_frames(clip, frames=frames, size=round(size * MARGIN), rng=rng)
    generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
    view_TCSS = draw_clip_view(torch.from_numpy(frames_THWC), size, generator, augmentation)
    return view_TCSS.permute(0, 2, 3, 1).contiguous().numpy()


def draw_clip_view(
    frames_THWC: Tensor, size: int, generator: torch.Generator, augmentation: ClipAugmentation
) -> Tensor:
    """Crop, mirror and recolour all frames alike.

    Args:
        frames_THWC: uint8 RGB.
        size: S, pixels.
        generator: A CPU generator; every random number comes from it.
        augmentation: How strongly.

    Returns:
        view_TCSS: uint8.
    """
    strength = augmentation.strength()
    count = len(frames_THWC)
    pixels_TCHW = frames_THWC.permute(0, 3, 1, 2).float() / 255
    affine_T23 = draw_crops(1, generator, strength).expand(count, -1, -1)
    view_TCSS = cut(pixels_TCHW, affine_T23, size)
    # Frames one below the other are one picture, so that one draw and one mean hold for all.
    tall_1CHS = view_TCSS.transpose(0, 1).flatten(1, 2)[None]
    tall_1CHS = recolour(tall_1CHS, generator, strength)
    view_TCSS = tall_1CHS[0].unflatten(1, (count, size)).transpose(0, 1)
    return (view_TCSS.clamp(0, 1) * 255).round().to(torch.uint8)
