"""Views of clips: the frames that are evaluated and served, and augmentation draws of them.

A draw is one crop, one mirroring and one colour change for all frames: what differs between frames
is motion, which a draw of its own for each frame would hide (model/papers/protocol.md, section 5).
Task-Adapter's crops of each frame are for its own recipe. Frame times are jittered inside their
spans.

Dimensions: T frames, C colours (RGB), H = W pixels of the frames read, S of a view.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.errors import ClipError, ClipUndecodableError, NoFramesError
from model.media.container import UNLIMITED, MediaLimits
from model.media.decoding import decode_video
from model.media.display import Framing
from model.media.pictures import read_pictures
from model.media.sampling import centre_indices, jittered_indices
from model.media.video import read_clip
from training.data.datasets import LabelledClip
from training.data.listings import PICTURES
from training.data.local_video import decode_local
from training.errors import InputError
from training.features.augmentation import Augmentation, cut, draw_crops, recolour

VIEW_RULE = "pyav-2, by time"  # changes when the same arguments give another view
MARGIN = 256 / 224  # side of the frames that crops are cut from / side of a view


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipAugmentation:
    """How strongly draws differ from the plain view."""

    min_area: float = 0.5  # smallest crop, share of the frame
    max_area: float = 1.0  # largest crop
    max_stretch: float = 4 / 3  # largest ratio of a crop's sides
    mirror: float = 0.5  # chance of exchanging left and right; 0 where labels tell them apart
    jitter: float = 0.3  # brightness, contrast and saturation, each in 1 +- jitter
    grey: float = 0.1  # chance of a draw without colour
    hue: float = 0.0  # largest turn of the colours, share of their circle
    each_frame: bool = False  # whether every frame has a crop of its own
    of_supports: int = 0  # so many draws, the first, are plain crops: supports are seen by them

    def strength(self) -> Augmentation:
        """Return the same strengths for pictures; clips are never mixed."""
        return Augmentation(
            min_area=self.min_area,
            max_area=self.max_area,
            max_stretch=self.max_stretch,
            mirror=self.mirror,
            jitter=self.jitter,
            grey=self.grey,
            hue=self.hue,
            mixup=0.0,
        )


def plain_crop(mirror: float, *, each_frame: bool = False) -> ClipAugmentation:
    """Return draws that differ by the place of a crop as large as the plain view, and by frames."""
    area = MARGIN**-2
    return ClipAugmentation(
        min_area=area,
        max_area=area,
        max_stretch=1.0,
        mirror=mirror,
        jitter=0.0,
        grey=0.0,
        each_frame=each_frame,
    )


def query_draws(mirror: float, *, of_supports: int) -> ClipAugmentation:
    """Return draws whose first ones, of supports, are plain crops; those of queries do more.

    They are mirrored and change colours too, as D2ST, SloshNet and CLIP-FSAR on Kinetics train
    (model/papers/protocol.md, section 5).
    """
    crop = plain_crop(mirror)
    return replace(crop, jitter=0.5, grey=0.3, hue=0.25, of_supports=of_supports)


def clip_name(clip: LabelledClip) -> str:
    """Return a name that does not depend on where the data lies: the list's, or folder and file."""
    return clip.name or "/".join(clip.path.parts[-2:])


def hash_clips(clips: Sequence[LabelledClip]) -> str:
    """Hash names and sizes in their order; the data may be moved.

    Raises:
        InputError: A file is gone.
    """
    digest = hashlib.sha256()
    for clip in clips:
        digest.update(f"{clip_name(clip)}\0{_size(clip.path)}\0".encode())
    return digest.hexdigest()


def _size(path: Path) -> int:
    """Return the bytes of a video, or of all pictures of a folder."""
    try:
        files = [*path.iterdir()] if path.is_dir() else [path]
        return sum(file.stat().st_size for file in files)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error}); remove it from the data.") from error


def read_view(
    clip: LabelledClip,
    *,
    frames: int,
    size: int,
    draw: int,
    seed: int,
    augmentation: ClipAugmentation,
    squash: int | None = None,
) -> NDArray[np.uint8]:
    """Read one view of a clip; it follows from the arguments and the file alone.

    Args:
        clip: A video or a folder of pictures.
        frames: T.
        size: S, pixels.
        draw: 0 is the plain view, which is evaluated and served; others are augmentation draws.
        seed: Of all draws.
        augmentation: How strongly.
        squash: Side that whole frames are squashed to before the crop; None keeps their shape.

    Returns:
        view_TSSC, uint8 RGB.

    Raises:
        ClipError: The clip cannot be read.
    """
    if draw == 0:
        return read_frames(clip, frames=frames, size=size, squash=squash)
    digest = hashlib.sha256(f"{seed}:{draw}:{clip_name(clip)}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:16], "big"))
    side = squash or round(size * MARGIN)
    frames_THWC = read_frames(clip, frames=frames, size=side, squash=squash, rng=rng)
    generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
    if draw <= augmentation.of_supports:
        augmentation = plain_crop(0.0)
    view_TCSS = draw_clip_view(torch.from_numpy(frames_THWC), size, generator, augmentation)
    return view_TCSS.permute(0, 2, 3, 1).contiguous().numpy()


def draw_clip_view(
    frames_THWC: Tensor, size: int, generator: torch.Generator, augmentation: ClipAugmentation
) -> Tensor:
    """Crop, mirror and recolour all frames alike, but for crops of each frame.

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
    crops = count if augmentation.each_frame else 1
    affine_T23 = draw_crops(crops, generator, strength).repeat(count // crops, 1, 1)
    # The first frame's mirroring holds for all.
    affine_T23[:, 0, 0] = affine_T23[:, 0, 0].abs() * affine_T23[0, 0, 0].sign()
    view_TCSS = cut(pixels_TCHW, affine_T23, size)
    # Frames one below the other are one picture, so that one draw and one mean hold for all.
    tall_1CHS = view_TCSS.transpose(0, 1).flatten(1, 2)[None]
    tall_1CHS = recolour(tall_1CHS, generator, strength)
    view_TCSS = tall_1CHS[0].unflatten(1, (count, size)).transpose(0, 1)
    return (view_TCSS.clamp(0, 1) * 255).round().to(torch.uint8)


def read_frames(
    clip: LabelledClip,
    *,
    frames: int,
    size: int,
    rng: np.random.Generator | None = None,
    limits: MediaLimits = UNLIMITED,
    squash: int | None = None,
) -> NDArray[np.uint8]:
    """Read a clip's plain view, uint8 [T, H, W, 3]: short side scaled to `size`, centre crop.

    Args:
        clip: A video or a folder of pictures, which are taken in natural order.
        frames: T equal spans of the clip, one frame each.
        size: Height and width in pixels.
        rng: Draws a frame inside each span, for an augmentation draw, which decord may read. If
            None, the centre of each span, read as the service reads it.
        limits: What a clip may be.
        squash: Side that whole frames are squashed to before the crop; None keeps their shape.

    Raises:
        ClipError: The clip cannot be used; the message begins with its path.
    """
    try:
        if clip.path.is_dir():
            return _read_folder(clip.path, frames, Framing(size, squash), rng)
        decode = decode_video if rng is None else decode_local
        read = partial(read_clip, limits=limits, jitter=rng, decode=decode)
        video = read(clip.path, frames=frames, size=size, squash=squash)
    except ClipError as error:
        raise type(error)(f"{clip.path}: {error}") from error
    except OSError as error:
        raise ClipUndecodableError(
            f"{clip.path} cannot be read ({error.strerror}); restore or remove it."
        ) from error
    return cast("NDArray[np.uint8]", video.frames_THWC)


def _read_folder(
    folder: Path, frames: int, framing: Framing, rng: np.random.Generator | None
) -> NDArray[np.uint8]:
    pictures = sorted(
        (path for path in folder.iterdir() if path.suffix.lower() in PICTURES), key=_natural
    )
    if not pictures:
        raise NoFramesError("The folder holds no JPEG or PNG picture; extract its frames again.")
    count = len(pictures)
    picked = centre_indices(count, frames) if rng is None else jittered_indices(count, frames, rng)
    encoded = [pictures[k].read_bytes() for k in picked]
    read = read_pictures(encoded, frames=frames, limits=UNLIMITED, **framing._asdict())
    return cast("NDArray[np.uint8]", read.frames_THWC)


def _natural(path: Path) -> tuple[tuple[int, str], ...]:
    """Order picture 2 before picture 10."""
    parts = re.findall(r"\d+|\D+", path.name)
    return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in parts)
