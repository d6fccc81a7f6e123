"""The text score: the stages of a class against windows of a clip, or a label against a clip.

Source: Task-Adapter++ (model/papers/task_adapter.md), CLIP-FSAR (model/papers/clip_fsar.md),
ActionCLIP (model/papers/actionclip.md).

Dimensions: Q clips, N classes, A stages, T frames, U = T - 1 aligned steps, E feature width.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.config.method import Align


class StageText(nn.Module):
    """Cosine of each stage's text with its window of the clip, and their mean.

    Args:
        stages: A.
        align: How T frames become T - 1 aligned steps.
        cosine: `frames` averages the cosines of a window's frames, as released; `mean` takes the
            cosine of their mean (Task-Adapter++, Eq. 16 and 17).
        norm: Of what alignment adds to the later frame, trained; None adds it as it is.
    """

    scale = 1.0

    def __init__(
        self,
        stages: int,
        align: Align,
        cosine: Literal["frames", "mean"],
        norm: nn.LayerNorm | None = None,
    ) -> None:
        super().__init__()
        self.norm = norm
        self.align: Align = align
        self.cosine: Literal["frames", "mean"] = cosine
        self.transductive = align == "joint"
        self.per_task = False
        self.least_frames = stages + 1

    def is_initial(self) -> bool:
        """Tell whether it scores frames as they are; a norm changes them from its start on."""
        return self.norm is None

    def forward(self, query_QTE: Tensor, text_NAE: Tensor) -> tuple[Tensor, Tensor]:
        """Return text_QN and stages_QNA, both in [-1, 1]."""
        aligned_QUE = align(query_QTE, self.align, self.norm)
        stages_QNA = stage_scores(aligned_QUE, text_NAE, self.cosine)
        return stages_QNA.mean(dim=-1), stages_QNA


class LabelText(nn.Module):
    """Log-probability of each label by its text: the scaled cosine with the mean frame.

    The scale is trained and starts at 1 (CLIP-FSAR).
    """

    transductive, per_task = False, True
    least_frames = 1

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def is_initial(self) -> bool:
        """Tell whether the scale is where it starts."""
        return bool(self.scale == 1)

    def forward(self, query_QTE: Tensor, text_NAE: Tensor) -> tuple[Tensor, None]:
        """Return text_QN, at most 0; stages are averaged."""
        query_QE = F.normalize(query_QTE.float().mean(dim=1), dim=-1)
        text_NE = F.normalize(text_NAE.float().mean(dim=1), dim=-1)
        return (self.scale * query_QE @ text_NE.T).log_softmax(dim=-1), None


class LabelCosine(nn.Module):
    """Cosine of each label's text with the mean frame (Task-Adapter, 2024)."""

    transductive, per_task = False, False
    least_frames = 1
    scale = 1.0

    def is_initial(self) -> bool:
        """Tell that there is nothing to train."""
        return True

    def forward(self, query_QTE: Tensor, text_NAE: Tensor) -> tuple[Tensor, None]:
        """Return text_QN in [-1, 1]; stages are averaged."""
        query_QE = F.normalize(query_QTE.float().mean(dim=1), dim=-1)
        return query_QE @ F.normalize(text_NAE.float().mean(dim=1), dim=-1).T, None


class TemplateText(nn.Module):
    """Log-probability of each label: the mean over its texts of the softmax of scaled cosines.

    Probabilities are averaged, not embeddings, which would give other numbers (ActionCLIP;
    model/papers/actionclip.md, section 6).

    Args:
        sharpness: Of the cosines (`scale`); a constant, not a scale that was learned.
    """

    transductive, per_task = False, True
    least_frames = 1

    def __init__(self, sharpness: float) -> None:
        super().__init__()
        self.scale = sharpness

    def is_initial(self) -> bool:
        """Tell that there is nothing to train."""
        return True

    def forward(self, query_QTE: Tensor, text_NAE: Tensor) -> tuple[Tensor, None]:
        """Return text_QN, at most 0; the mean frame of a query meets each text by itself."""
        query_QE = F.normalize(query_QTE.float().mean(dim=1), dim=-1)
        text_NAE = F.normalize(text_NAE.float(), dim=-1)
        cosine_QNA = torch.einsum("qe,nae->qna", query_QE, text_NAE)
        log_QNA = (self.scale * cosine_QNA).log_softmax(dim=1)
        return log_QNA.logsumexp(dim=-1) - math.log(text_NAE.shape[1]), None


def align(query_QTE: Tensor, mode: Align, norm: nn.LayerNorm | None = None) -> Tensor:
    """Make T - 1 aligned steps of T frames; the residual is the later frame.

    Args:
        query_QTE: Frame features of the queries.
        mode: `identity` keeps the later frame; `temporal` attends from each frame to the frames
            of its own clip; `joint` attends from each frame to the later frames of all queries,
            as released (training and reproduction only).
        norm: Of what is added to the later frame; under `identity`, which is what a query by itself
            gets of `joint`, that is the later frame once more.

    Returns:
        aligned_QUE.
    """
    earlier_QUE, later_QUE = query_QTE[:, :-1], query_QTE[:, 1:]
    scale = query_QTE.shape[-1] ** -0.5
    match mode:
        case "identity":
            return later_QUE if norm is None else norm(later_QUE) + later_QUE
        case "temporal":
            weights_QUT = (earlier_QUE @ query_QTE.transpose(1, 2) * scale).softmax(dim=-1)
            added_QUE = weights_QUT @ query_QTE
        case "joint":
            logits_UQR = torch.einsum("que,rue->uqr", earlier_QUE, later_QUE) * scale
            added_QUE = torch.einsum("uqr,rue->que", logits_UQR.softmax(dim=-1), later_QUE)
    return later_QUE + (added_QUE if norm is None else norm(added_QUE))


def stage_windows(steps: int, stages: int) -> tuple[slice, ...]:
    """Cut aligned steps into a window for each stage; windows meet or overlap by one.

    Seven steps, of 8 frames, and three stages give the paper's 1-3, 3-5 and 5-7 (from 1).
    """
    return tuple(
        slice(stage * steps // stages, -(-(stage + 1) * steps // stages)) for stage in range(stages)
    )


def stage_means(aligned_QUE: Tensor, stages: int) -> Tensor:
    """Return the mean of each stage's window [Q, A, E]."""
    windows = stage_windows(aligned_QUE.shape[1], stages)
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
    window_QAE = stage_means(frames_QUE, text_NAE.shape[1])
    if cosine == "mean":
        window_QAE = F.normalize(window_QAE, dim=-1)
    return torch.einsum("qae,nae->qna", window_QAE, text_NAE)
