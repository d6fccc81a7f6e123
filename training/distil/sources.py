"""What the student is taught on: clips, pictures that a camera moves over, and synthetic actions.

No clip of a test class or of a left-out class is a source, and none that was cut from the same
recording as one of theirs.

Dimensions: T frames, C colours (RGB), S pixels of a view.
"""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from training.data.datasets import LabelledClip
from training.data.listings import PICTURES, list_index
from training.distil.pseudo_clips import Camera, move_camera, read_picture
from training.errors import InputError
from training.features.augmentation import Augmentation
from training.features.clip_views import ClipAugmentation, read_view
from training.synthetic.actions import draw_action
from training.synthetic.rendering import FLOWING, SEPARATE, render_clip

CLIP_CHANGES = ClipAugmentation()
PICTURE_CHANGES = Augmentation(min_area=0.35, max_stretch=1.2, jitter=0.3, grey=0.05, mixup=0.0)


class Source(Protocol):
    """One thing to learn from."""

    @property
    def name(self) -> str:
        """Its name, wherever its file lies."""

    def view(self, frames: int, size: int, draw: int, seed: int) -> NDArray[np.uint8]:
        """Return a view [T, S, S, C], which follows from the arguments and the file alone."""


@dataclass(frozen=True, slots=True)
class RealClip:
    """A video; draw 0 is its plain view."""

    clip: LabelledClip

    @property
    def name(self) -> str:
        """Its name in the list."""
        return f"{self.clip.dataset}/{self.clip.name}"

    def view(self, frames: int, size: int, draw: int, seed: int) -> NDArray[np.uint8]:
        """Read it."""
        return read_view(
            self.clip, frames=frames, size=size, draw=draw, seed=seed, augmentation=CLIP_CHANGES
        )


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture; a camera moves over it."""

    folder: Path
    file: Path

    @property
    def name(self) -> str:
        """Its place in the folder."""
        return self.file.relative_to(self.folder).as_posix()

    def view(self, frames: int, size: int, draw: int, seed: int) -> NDArray[np.uint8]:
        """Move the camera."""
        generator = torch.Generator().manual_seed(seed_of(seed, draw, self.name))
        view_TCSS = move_camera(
            read_picture(self.file), frames, size, generator, Camera(), PICTURE_CHANGES
        )
        return view_TCSS.permute(0, 2, 3, 1).contiguous().numpy()


@dataclass(frozen=True, slots=True)
class SyntheticClip:
    """A synthetic action of the train split; every draw is another action."""

    number: int

    @property
    def name(self) -> str:
        """Its number."""
        return f"synthetic/{self.number}"

    def view(self, frames: int, size: int, draw: int, seed: int) -> NDArray[np.uint8]:
        """Render it; in every fourth one motions are carried on."""
        rng = np.random.default_rng(seed_of(seed, draw, self.name))
        course = SEPARATE if self.number % 4 else FLOWING
        return render_clip(draw_action(rng, "train"), rng, frames, size, course)


def seed_of(seed: int, draw: int, name: str) -> int:
    """Return the seed of a view."""
    digest = hashlib.sha256(f"{seed}:{draw}:{name}".encode()).digest()
    return int.from_bytes(digest[:7], "big")


def clips_of(indices: Sequence[Path], leave_out: Collection[str]) -> list[RealClip]:
    """List the train and val clips of each index.csv that nothing held out is related to.

    Args:
        indices: Files.
        leave_out: Labels that stay unseen.

    Raises:
        InputError: A list cannot be read, or none of them has such a label.
    """
    found: list[RealClip] = []
    known: set[str] = set()
    for index in indices:
        listed = list_index(index)
        known |= {clip.label for clip in listed}
        hidden = {
            clip.source_group for clip in listed if clip.split == "test" or clip.label in leave_out
        }
        found += [
            RealClip(
                LabelledClip(
                    index.parent / clip.name, clip.label, clip.source_group, clip.name,
                    dataset=index.parent.name,
                )
            )
            for clip in listed
            if clip.source_group not in hidden
        ]  # fmt: skip
    if missing := sorted(set(leave_out) - known):
        raise InputError(f"No list has the label {missing[0]!r}; leave out labels that are there.")
    return found


def pictures_of(folders: Sequence[Path]) -> list[Picture]:
    """List the pictures under folders, in the order of their names.

    Raises:
        InputError: A folder holds none.
    """
    found: list[Picture] = []
    for folder in folders:
        files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in PICTURES)
        if not files:
            raise InputError(f"{folder} holds no JPEG or PNG picture; give another folder.")
        found += [Picture(folder, file) for file in files]
    return found
