"""How well features tell the classes that were left out of all distillation.

Dimensions: C clips, T frames, S pixels, E feature width.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from training.data.datasets import LabelledClip
from training.data.episodes import Episode, EpisodePlan, EpisodeSampler
from training.data.listings import list_index
from training.errors import InputError
from training.features.clip_views import read_frames
from training.progress import progress

SHOTS = (1, 5)
WAYS, QUERIES, EPISODES = 5, 5, 1000
PASS = 16  # clips of one pass


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Clips of unseen classes of one data set, as they are served."""

    name: str
    clips: tuple[LabelledClip, ...]
    frames_CTSSC: Tensor  # uint8


def read_held_out(
    indices: Sequence[Path], labels: Collection[str], frames: int, size: int
) -> list[HeldOut]:
    """Read the clips of left-out labels from each index.csv; test classes are never read.

    Args:
        indices: Files.
        labels: Left out of the targets.
        frames: T.
        size: S.
    """
    found = []
    for index in indices:
        name = index.parent.name
        clips = tuple(
            LabelledClip(index.parent / c.name, c.label, c.source_group, c.name, dataset=name)
            for c in list_index(index)
            if c.label in labels and c.split != "test"
        )
        if not clips:
            raise InputError(f"{index} has none of the labels that were left out; drop it.")
        bar = progress(clips, desc=f"unseen classes of {name}", unit="clip")
        read = [read_frames(clip, frames=frames, size=size) for clip in bar]
        found.append(HeldOut(name, clips, torch.from_numpy(np.stack(read))))
    return found


@torch.inference_mode()
def accuracies(held: HeldOut, features: Callable[[Tensor], Tensor]) -> dict[str, float]:
    """Return the accuracy in per cent at each number of shots that the clips allow.

    Five ways, or as many as there are; five queries a class, or as many as the clips allow.

    Args:
        held: The clips.
        features: Turns frames_BTSSC into features_BTE.
    """
    parts = [features(part).mean(1) for part in held.frames_CTSSC.split(PASS)]
    unit_CE = F.normalize(torch.cat(parts), dim=1)
    ways = min(WAYS, len({clip.label for clip in held.clips}))
    found = {}
    for shots in SHOTS:
        for queries in range(QUERIES, 0, -1):
            plan = EpisodePlan(ways, shots, queries)
            if EpisodeSampler.fits(held.clips, plan):
                drawn = map(EpisodeSampler(held.clips, plan, 0).draw, range(EPISODES))
                right = [_share_right(unit_CE, episode) for episode in drawn]
                found[f"{held.name} {shots}-shot"] = round(100 * float(np.mean(right)), 2)
                break
    return found


def _share_right(unit_CE: Tensor, episode: Episode) -> float:
    support_SE = unit_CE[list(episode.support)]
    mean_NE = support_SE.unflatten(0, (len(episode.labels), -1)).mean(1)
    chosen_Q = (unit_CE[list(episode.query)] @ F.normalize(mean_NE, dim=1).T).argmax(1)
    return float((chosen_Q == torch.tensor(episode.query_classes)).float().mean())
