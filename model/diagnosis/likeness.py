"""Which clips are alike or come from one scene, by the features of their frames.

All cosines are of features less the mean of the task's: what all its clips share is no likeness.

Dimensions: S clips, T frames, E feature width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.diagnosis.splits import places_of

SAME = 0.97  # mean cosine of frames at the same place: a copy, or one that was encoded again
ONE_SCENE = 0.8  # least cosine of the first frames of a label's clips
OWN_SCENE = 0.3  # that these must have over the cosine with first frames of other labels
LEAST_CLIPS = 3  # of a label whose scene is judged


@dataclass(frozen=True, slots=True)
class Likeness:
    """What the features of clips show without their labels' names.

    Args:
        twins: Pairs of clips that show the same frames, with their cosine.
        one_scene: Labels whose clips all begin in a scene of their own, with the least cosine.
    """

    twins: tuple[tuple[int, int, float], ...]
    one_scene: tuple[tuple[int, float], ...]


def likeness(features_STE: np.ndarray, classes: Sequence[int]) -> Likeness:
    """Compare all clips of a task."""
    centred_STE = features_STE - features_STE.mean(axis=(0, 1))
    unit_STE = centred_STE / np.maximum(np.linalg.norm(centred_STE, axis=-1, keepdims=True), 1e-9)
    cosine_SS = np.einsum("ate,bte->ab", unit_STE, unit_STE) / unit_STE.shape[1]
    twins = [
        (one, other, float(cosine_SS[one, other]))
        for one, other in zip(*np.triu_indices(len(cosine_SS), 1), strict=True)
        if cosine_SS[one, other] >= SAME
    ]
    first_SS = unit_STE[:, 0] @ unit_STE[:, 0].T
    return Likeness(
        tuple((int(one), int(other), value) for one, other, value in twins),
        tuple(_one_scene(first_SS, places_of(classes))),
    )


def _one_scene(first_SS: np.ndarray, labels: Sequence[list[int]]) -> list[tuple[int, float]]:
    found = []
    for label, places in enumerate(labels):
        if len(places) < LEAST_CLIPS:
            continue
        others = sorted(set(range(len(first_SS))) - set(places))
        within = first_SS[np.ix_(places, places)]
        least = float(within.min())
        across = float(first_SS[np.ix_(places, others)].max())
        if least >= ONE_SCENE and least - across >= OWN_SCENE:
            found.append((label, least))
    return found
