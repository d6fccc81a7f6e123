"""The text score: three stages of a class against three windows of a clip.

Source: Task-Adapter++ (specs/methods-1, sections 6.5 and 6.10).

Dimensions: Q clips, N classes, A stages, T frames, U = T - 1 aligned steps, E feature width.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from model.config import Align
from model.errors import EpisodeError
from model.text import STAGES

MIN_FRAMES = STAGES + 1


def align(query_QTE: Tensor, mode: Align) -> Tensor:
    """Make T - 1 aligned steps of T frames; the residual is the later frame.

    Args:
        query_QTE: Frame features of the queries.
        mode: `identity` keeps the later frame; `temporal` attends from each frame to the frames
            of its own clip; `joint` attends from each frame to the later frames of all queries,
            as released (training and reproduction only).

    Returns:
        aligned_QUE.

    Raises:
        EpisodeError: fewer than 4 frames.
    """
    if query_QTE.shape[1] < MIN_FRAMES:
        raise EpisodeError(
            f"Three stages need clips of {MIN_FRAMES} frames or more, not {query_QTE.shape[1]}; "
            "raise frames in the method."
        )
    earlier_QUE, later_QUE = query_QTE[:, :-1], query_QTE[:, 1:]
    scale = query_QTE.shape[-1] ** -0.5
    match mode:
        case "identity":
            return later_QUE
        case "temporal":
            weights_QUT = (earlier_QUE @ query_QTE.transpose(1, 2) * scale).softmax(dim=-1)
            return weights_QUT @ query_QTE + later_QUE
        case "joint":
            logits_UQR = torch.einsum("que,rue->uqr", earlier_QUE, later_QUE) * scale
            return torch.einsum("uqr,rue->que", logits_UQR.softmax(dim=-1), later_QUE) + later_QUE


def stage_windows(steps: int) -> tuple[slice, ...]:
    """Cut aligned steps into three windows that meet or overlap by one.

    Seven steps, of 8 frames, give the paper's 1-3, 3-5 and 5-7 (counted from 1).
    """
    return tuple(
        slice(stage * steps // STAGES, -(-(stage + 1) * steps // STAGES)) for stage in range(STAGES)
    )


def stage_means(aligned_QUE: Tensor) -> Tensor:
    """Return the mean of each stage's window [Q, A, E]."""
    windows = stage_windows(aligned_QUE.shape[1])
    return torch.stack([aligned_QUE[:, window].mean(dim=1) for window in windows], dim=1)


def stage_scores(
    aligned_QUE: Tensor, text_NAE: Tensor, cosine: Literal["frames", "mean"]
) -> Tensor:
    """Compare each stage's text with its window of the clip.

    Args:
        aligned_QUE: From `align`.
        text_NAE: Stage features of each class.
        cosine: `frames` averages the cosines of a window's frames, as released; `mean` takes the
            cosine of their mean (paper, Eq. 16 and 17).

    Returns:
        stages_QNA in [-1, 1]; their mean over stages is the text score [query, class].
    """
    text_NAE = F.normalize(text_NAE.float(), dim=-1)
    frames_QUE = aligned_QUE.float()
    if cosine == "frames":
        frames_QUE = F.normalize(frames_QUE, dim=-1)
    window_QAE = stage_means(frames_QUE)
    if cosine == "mean":
        window_QAE = F.normalize(window_QAE, dim=-1)
    return torch.einsum("qae,nae->qna", window_QAE, text_NAE)
