"""Scores of clips of a split by other clips, from features that are made once.

Dimensions: C clips of the split, T frames, E feature width, Q queries, N classes.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.diagnosis.splits import Split
from model.recognizer import Recognizer
from training.data.episodes import Episode


class Judge:
    """Scores clips of a split by other clips.

    Args:
        recognizer: What scores.
        features_CTE: Of all clips of the split.
    """

    def __init__(self, recognizer: Recognizer, features_CTE: Tensor) -> None:
        self.recognizer = recognizer
        self.features_CTE = features_CTE

    @torch.inference_mode()
    def evidence(
        self, clips: Sequence[int], classes: Sequence[int], asked: Sequence[int]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return logits [Q, N] of clips by others, and how near each is to its nearest class."""
        features = self.features_CTE
        classes_S = torch.tensor(classes, device=features.device)
        scores = self.recognizer.score_features(
            features[list(clips)], classes_S, features[list(asked)], None
        )
        near_Q = scores.near_QN.amax(dim=1)
        return scores.logits_QN.double().cpu().numpy(), near_Q.double().cpu().numpy()

    def logits(
        self, clips: Sequence[int], classes: Sequence[int], asked: Sequence[int]
    ) -> NDArray[np.float64]:
        """Return logits [Q, N] of clips by others."""
        return self.evidence(clips, classes, asked)[0]

    def held_out(
        self, clips: Sequence[int], classes: Sequence[int], splits: Sequence[Split]
    ) -> list[np.ndarray]:
        """Return logits of each split of a task."""
        return [
            self.logits(
                [clips[place] for place in split.supports],
                [classes[place] for place in split.supports],
                [clips[place] for place in split.queries],
            )
            for split in splits
        ]

    def accuracy(self, episode: Episode, places: Sequence[int]) -> float:
        """Return the share of an episode's queries that some of its supports recognise."""
        clips = [episode.support[place] for place in places]
        classes = [episode.support_classes[place] for place in places]
        found = self.logits(clips, classes, episode.query).argmax(axis=1)
        return float((found == np.array(episode.query_classes)).mean())
