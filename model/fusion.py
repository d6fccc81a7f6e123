"""How the video score and the text score meet in logits, and what logits say.

Dimensions: Q clips, N classes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from model.matching.trust import TextTrust, text_trust


class VideoOnly(nn.Module):
    """The video score alone: a similarity times a scale, or a negative distance as it is.

    Args:
        scale: Of the video score.
    """

    reads_video = True
    reads_text, needs_bounded, per_task, asks_supports = False, False, False, False

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def is_initial(self) -> bool:
        """Tell that there is nothing to train."""
        return True

    def forward(self, video_QN: Tensor, text_QN: Tensor | None) -> Tensor:  # noqa: ARG002
        """Return logits_QN."""
        return self.scale * video_QN


class Product(nn.Module):
    """scale * video * text, of two cosines (Task-Adapter++; model/papers/task_adapter.md).

    Args:
        scale: Of the product.
    """

    reads_video = True
    reads_text, needs_bounded, per_task, asks_supports = True, True, False, False

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def is_initial(self) -> bool:
        """Tell that there is nothing to train."""
        return True

    def forward(self, video_QN: Tensor, text_QN: Tensor | None) -> Tensor:
        """Return logits_QN; without text, of the video score alone."""
        if text_QN is None:
            return self.scale * video_QN
        return self.scale * video_QN * text_QN


class Geometric(nn.Module):
    """text^share * softmax(video / softness)^(1 - share) (CLIP-FSAR; model/papers/clip_fsar.md).

    A distance becomes a probability by its softmax over the classes of the task, which is why a
    class's logit depends on the other classes.

    Args:
        text_share: Exponent of the text's probability, 0 to 1.
        softness: Distances are divided by it.
    """

    reads_video = True
    reads_text, needs_bounded, per_task, asks_supports = True, False, True, False

    def __init__(self, text_share: float, softness: float) -> None:
        super().__init__()
        self.text_share, self.softness = text_share, softness

    def is_initial(self) -> bool:
        """Tell that there is nothing to train."""
        return True

    def forward(self, video_QN: Tensor, text_QN: Tensor | None) -> Tensor:
        """Return logits_QN, the logarithm of the mean; without text, the video score.

        Args:
            video_QN: A negative distance or a similarity.
            text_QN: Log-probability of each class by its text.
        """
        if text_QN is None:
            return video_QN
        log_video_QN = (video_QN / self.softness).log_softmax(dim=-1)
        return self.text_share * text_QN + (1 - self.text_share) * log_video_QN


class Convex(nn.Module):
    """share * text + (1 - share) * softmax(scale * video) (model/papers/actionclip.md, section 7).

    Both are probabilities over the classes of the task, so a class's logit depends on the others.

    Args:
        text_share: Weight of the text's probability, 0 to 1.
        scale: Of the video score.
    """

    reads_text, needs_bounded, per_task, asks_supports = True, False, True, False

    def __init__(self, text_share: float, scale: float) -> None:
        super().__init__()
        self.text_share, self.scale = text_share, scale
        self.reads_video = text_share < 1
        self._log_shares = torch.tensor([text_share, 1 - text_share]).log().tolist()

    def is_initial(self) -> bool:
        """Tell that there is nothing to train."""
        return True

    def forward(self, video_QN: Tensor, text_QN: Tensor | None) -> Tensor:
        """Return logits_QN, the logarithm of the sum; without text, the scaled video score.

        Args:
            video_QN: A negative distance or a similarity.
            text_QN: Log-probability of each class by its text.
        """
        video_QN = self.scale * video_QN
        if text_QN is None:
            return video_QN
        text, video = self._log_shares
        return torch.logaddexp(text + text_QN, video + video_QN.log_softmax(dim=-1))


class Sum(nn.Module):
    """text + weight * video: logits of two kinds (Tip-Adapter; model/papers/matching.md).

    Args:
        video_weight: Of the video score beside text.
        scale: Of the video score alone, where there is no text.
    """

    reads_video = True
    reads_text, needs_bounded, per_task, asks_supports = True, False, False, False

    def __init__(self, video_weight: float, scale: float) -> None:
        super().__init__()
        self.video_weight, self.scale = video_weight, scale

    def is_initial(self) -> bool:
        """Tell that there is nothing to train."""
        return True

    def forward(self, video_QN: Tensor, text_QN: Tensor | None) -> Tensor:
        """Return logits_QN; without text, of the video score alone.

        Args:
            video_QN: A negative distance or a similarity.
            text_QN: Log-probability of each class by its text, which is its scaled cosine but for
                what all classes share.
        """
        if text_QN is None:
            return self.scale * video_QN
        return text_QN + self.video_weight * video_QN


class Trust(nn.Module):
    """sqrt(shots) * weight * video + text, the text as a task's supports let it count.

    Args:
        scale: Of the video score alone, where there is no text.
        video: Weight of the video score of one shot.
        text: Weight of the text score, before supports are asked.
        doubt: How far supports may move it, octaves.
    """

    reads_video = True
    reads_text, needs_bounded, per_task, asks_supports = True, True, False, True

    def __init__(self, scale: float, video: float, text: float, doubt: float) -> None:
        super().__init__()
        self.scale, self.video, self.text, self.doubt = scale, video, text, doubt

    def is_initial(self) -> bool:
        """Tell that there is nothing to train."""
        return True

    def trust(self, video_SN: Tensor, text_SN: Tensor, classes_S: Tensor) -> TextTrust:
        """Return what the text counts beside a video score of weight 1 a shot's root."""
        root = math.sqrt(len(classes_S) / video_SN.shape[1])
        found = text_trust(self.video * root * video_SN, text_SN, classes_S, self.text, self.doubt)
        return replace(found, weight_N=found.weight_N / root)

    def forward(self, video_QN: Tensor, text_QN: Tensor | None) -> Tensor:
        """Return logits_QN; without text, of the video score alone.

        Args:
            video_QN: A similarity.
            text_QN: Cosine of each class with its text, less its level, weighed.
        """
        if text_QN is None:
            return self.scale * video_QN
        return self.video * video_QN + text_QN


@dataclass(frozen=True, slots=True)
class TaskCalibration:
    """What turns the scores of one task into probabilities and `unknown`.

    Args:
        scale: Probabilities are softmax(scale * logits).
        threshold: A query whose nearest class is less near than this is none of them.
    """

    scale: float = 1.0
    threshold: float = -1.0

    def probabilities(self, logits_N: Sequence[float]) -> tuple[float, ...]:
        """Return the probability of each class; they sum to 1."""
        most = max(logits_N)
        powers = [math.exp(self.scale * (logit - most)) for logit in logits_N]
        total = math.fsum(powers)
        return tuple(power / total for power in powers)


AS_THEY_ARE = TaskCalibration()  # of supports that nothing was fitted for
