"""Square pictures of folders of pictures and videos, in one tensor; no test class is ever read.

Dimensions: N pictures, H = W = side pixels, C = 3 colours (RGB).
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from model.errors import ClipError
from model.media.container import UNLIMITED
from model.media.video import read_clip
from training.data.listings import VIDEOS, read_index
from training.data.local_video import decode_local
from training.errors import InputError
from training.progress import progress
from training.synthetic.actions import draw_action
from training.synthetic.rendering import render_clip

PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
SPLITS = ("train", "val")  # of an index.csv; no test class is ever read
WIDE = 1.15  # ratio of sides from which a picture gives two squares, one from each end
UNREADABLE_SHARE = 0.05  # of the files; more is an error
SYNTHETIC_FRAMES = 4  # kept of each synthetic clip


@dataclass(frozen=True, slots=True)
class FramePools:
    """Pictures by origin; an origin is drawn in proportion to the square root of its size."""

    pictures_NHWC: Tensor  # uint8, all origins, one after the other
    counts: tuple[int, ...]  # of each origin

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw the indices of `count` pictures."""
        weights = torch.tensor(self.counts, dtype=torch.float).sqrt()
        origin = torch.multinomial(weights, count, replacement=True, generator=generator)
        sizes = torch.tensor(self.counts)
        starts = sizes.cumsum(0) - sizes
        within = torch.rand(count, generator=generator, dtype=torch.float64) * sizes[origin]
        return starts[origin] + within.long()


def list_files(folder: Path) -> list[Path]:
    """Return the pictures and videos of a folder: all, or the train and val clips of an index.csv.

    Raises:
        InputError: There is no such folder, or nothing in it.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; give folders of pictures or videos.")
    index = folder / "index.csv"
    if index.is_file():
        files = [folder / row["path"] for row in read_index(index) if row["split"] in SPLITS]
    else:
        files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in PICTURES | VIDEOS)
    if not files:
        raise InputError(f"{folder} holds no picture or video to learn from; give another folder.")
    return files


def read_pools(folders: Sequence[Path], synthetic: int, *, side: int, per_clip: int) -> FramePools:
    """Read all folders and render the synthetic clips.

    Args:
        folders: Each is one origin.
        synthetic: How many clips of the train split to render; together one more origin.
        side: Pixels of a held picture.
        per_clip: Frames taken from each video.

    Raises:
        InputError: There is nothing to read, or more than 5 % of a folder cannot be read.
    """
    origins = [_read_folder(folder, side, per_clip) for folder in folders]
    if synthetic:
        origins.append(_render(synthetic, side))
    if not origins:
        raise InputError("There is nothing to learn from; give --frames DIR or --synthetic N.")
    pictures = torch.from_numpy(np.concatenate(origins))
    return FramePools(pictures, tuple(len(origin) for origin in origins))


def _read_folder(folder: Path, side: int, per_clip: int) -> NDArray[np.uint8]:
    files = list_files(folder)
    found: list[NDArray[np.uint8]] = []
    failed: list[Path] = []
    for file in progress(files, desc=f"reading {folder.name}", unit="file", leave=False):
        try:
            found.extend(_squares(file, side, per_clip))
        except (ClipError, OSError, UnidentifiedImageError):
            failed.append(file)
    if len(failed) > UNREADABLE_SHARE * len(files):
        raise InputError(
            f"{len(failed)} of {len(files)} files in {folder} cannot be read, first "
            f"{failed[0].name}; repair or remove them."
        )
    if failed:
        print(f"{folder}: {len(failed)} files skipped, first {failed[0].name}", file=sys.stderr)
    return np.stack(found)


def _squares(file: Path, side: int, per_clip: int) -> Iterator[NDArray[np.uint8]]:
    if file.suffix.lower() in VIDEOS:
        clip = read_clip(file, frames=per_clip, size=side, limits=UNLIMITED, decode=decode_local)
        yield from clip.frames_THWC
        return
    with Image.open(file) as opened:
        picture = opened.convert("RGB")
    shrink = side / min(picture.size)
    width, height = (max(round(length * shrink), side) for length in picture.size)
    picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    wide = max(width, height) > WIDE * side
    for at in (0.0, 1.0) if wide else (0.5,):
        left, top = round((width - side) * at), round((height - side) * at)
        yield np.asarray(picture.crop((left, top, left + side, top + side)))


def _render(count: int, side: int) -> NDArray[np.uint8]:
    frames = []
    for seed in progress(range(count), desc="rendering", unit="clip", leave=False):
        rng = np.random.default_rng([seed, side])
        frames.append(render_clip(draw_action(rng, "train"), rng, SYNTHETIC_FRAMES, side))
    return np.concatenate(frames)
