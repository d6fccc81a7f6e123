"""Where names point in a student's space of features.

A name's direction is the row of the linear map from the student's features to the teacher's logits
(or to a label's own clips), fitted on what both say of the same clips. So a name has a direction
even where no clip shows it.

Dimensions: C clips, K names, E feature width.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from model.text import spoken
from training.distil.teacher import CLASSES
from training.errors import InputError


def read_names(file: Path) -> list[str]:
    """Read the names of the teacher's classes, a line each, as words.

    Raises:
        InputError: It cannot be read, or holds another number of names.
    """
    try:
        names = [spoken(line) for line in file.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read ({error}); give a file of names.") from error
    if len(names) != CLASSES:
        raise InputError(
            f"{file} has {len(names)} names; give the {CLASSES} of the teacher's classes."
        )
    return names


def shown(labels: Sequence[str | None], names: Sequence[str]) -> Tensor:
    """Return 1 where a clip has a label, else 0 [C, K]."""
    return torch.tensor([[float(label == name) for name in names] for label in labels])


def directions(features_CE: Tensor, wanted_CK: Tensor, ridge: float) -> Tensor:
    """Return the unit direction of each name [K, E], by ridge regression.

    Args:
        features_CE: Mean feature of each clip.
        wanted_CK: What the map of features is to say of each name.
        ridge: Of the map, in the mean variance of a feature.
    """
    centred_CE = features_CE - features_CE.mean(0)
    variance = float(centred_CE.square().mean())
    width = features_CE.shape[1]
    gram_EE = centred_CE.T @ centred_CE + ridge * len(centred_CE) * variance * torch.eye(width)
    map_EK = torch.linalg.solve(gram_EE, centred_CE.T @ (wanted_CK - wanted_CK.mean(0)))
    return F.normalize(map_EK.T, dim=1)


def centred(rows_KE: Tensor) -> Tensor:
    """Return unit directions without what all names have in common."""
    return F.normalize(rows_KE - rows_KE.mean(0), dim=1)
