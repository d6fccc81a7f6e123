"""What a student and its teacher say of the same clips.

Dimensions: C clips, T frames, S pixels, E feature width, K names.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from model.backbones.packaged.causal import CausalNetwork
from training.distil.sources import Source
from training.distil.teacher import VideoTeacher
from training.distil.teaching.motions import pixels
from training.progress import progress

FRAMES = 8  # of each view
TEACHER_SIZE = 172  # that it was trained at


@dataclass(frozen=True, slots=True)
class Answers:
    """Of clips; in the order that they were asked in."""

    features_CTE: Tensor  # the student's
    logits_CK: Tensor  # the teacher's

    def means(self) -> Tensor:
        """Return the mean feature of each clip, means_CE."""
        return self.features_CTE.mean(dim=1)


@torch.no_grad()
def ask(
    network: CausalNetwork, teacher: VideoTeacher, sources: Sequence[Source], size: int, draw: int
) -> Answers:
    """Show views of S pixels to both; the teacher's are no larger than those that it learned on.

    Args:
        network: The student.
        teacher: Of K names.
        sources: Where views come from.
        size: S.
        draw: Which view of each source; 0 is a real clip's plain one.
    """
    features, logits = [], []
    for source in progress(sources, desc="answers", unit="clip"):
        pixels_1TCSS = pixels(source.view(FRAMES, size, draw, 0))
        features.append(network(pixels_1TCSS)[0])
        logits.append(_named(teacher, pixels_1TCSS))
    return Answers(torch.stack(features), torch.cat(logits))


@torch.no_grad()
def features_of(network: CausalNetwork, views: Iterable[NDArray[np.uint8]], total: int) -> Tensor:
    """Return features_CTE of so many views."""
    bar = progress(views, desc="features", unit="clip", total=total)
    return torch.cat([network(pixels(view_TSSC)) for view_TSSC in bar])


def _named(teacher: VideoTeacher, pixels_1TCSS: Tensor) -> Tensor:
    if pixels_1TCSS.shape[-1] > TEACHER_SIZE:
        smaller = F.interpolate(pixels_1TCSS[0], TEACHER_SIZE, mode="bilinear", antialias=True)
        pixels_1TCSS = smaller[None]
    mean_1M = teacher(pixels_1TCSS)[-1].mean(dim=(0, 2, 3))[None]
    return teacher.logits(teacher.hidden(mean_1M))
