"""The text stage of pretraining: a small text tower learns the space of a frozen image tower.

As in LiT (arXiv 2111.07991) only the text side learns. Each stage's text is contrasted with the
same stage's window of the clips of a batch, by the score that recognition uses. Beside the texts
of other clips stand rivals: texts of the same mover in other motions, or in another order.

Dimensions: C clips, B clips of a batch, U texts of a batch, A stages, T frames, E feature width.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from model.matching.stages import align, stage_scores
from model.recognizer import Recognizer
from training.compact.captions import (
    Caption,
    Subject,
    partial_captions,
    rival_captions,
    whole_captions,
)
from training.compact.recipes import TextRecipe
from training.progress import progress
from training.synthetic.actions import Action


def train_text_tower(
    recognizer: Recognizer, features_CTE: Tensor, subjects: Sequence[Subject], recipe: TextRecipe
) -> float:
    """Train the recogniser's text tower in place; return the mean loss of the last tenth.

    Args:
        recognizer: Whose text tower learns.
        features_CTE: Frame features of clips.
        subjects: What each clip shows.
        recipe: How it learns.
    """
    assert recognizer.text is not None
    tower = recognizer.text.tower.model.requires_grad_(True)
    optimizer = torch.optim.AdamW(
        tower.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, betas=(0.9, 0.98)
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=recipe.lr, total_steps=recipe.steps, pct_start=0.1, cycle_momentum=False
    )
    rng = np.random.default_rng(recipe.seed)
    losses = []
    for _ in progress(range(recipe.steps), desc="text tower", unit="step"):
        picks = rng.integers(len(subjects), size=recipe.batch).tolist()
        shown = [subjects[pick] for pick in picks]
        captions = [caption for subject in shown for caption in said_of(subject, recipe, rng)]
        loss = text_loss(recognizer, features_CTE[picks], shown, captions, recipe)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
    tower.requires_grad_(False)
    last = losses[-max(len(losses) // 10, 1) :]
    return sum(last) / len(last)


def said_of(subject: Subject, recipe: TextRecipe, rng: np.random.Generator) -> list[Caption]:
    """Draw a caption that is true of a clip, and its rivals."""
    partial = partial_captions(subject)
    forms = partial if partial and rng.random() >= recipe.whole else whole_captions(subject)
    captions = [forms[int(rng.integers(len(forms)))]]
    if isinstance(subject, Action):
        captions += rival_captions(subject, rng, recipe.rivals)
    return captions


def text_loss(
    recognizer: Recognizer,
    features_BTE: Tensor,
    subjects: Sequence[Subject],
    captions: Sequence[Caption],
    recipe: TextRecipe,
) -> Tensor:
    """Contrast clips with captions, stage by stage, both ways; no true caption is a negative.

    Args:
        recognizer: Whose text tower learns.
        features_BTE: Frame features of the clips.
        subjects: What each clip shows.
        captions: One or more that are true of each clip, and rivals; equal ones count once.
        recipe: Sharpness and level.
    """
    assert recognizer.text is not None
    distinct = list(dict.fromkeys(captions))
    true_BUA = torch.tensor(
        [[caption.holds(subject) for caption in distinct] for subject in subjects],
        dtype=torch.float,
        device=features_BTE.device,
    )
    ids = recognizer.text.tower.tokenize([text for caption in distinct for text in caption.texts])
    ids = ids.to(features_BTE.device)
    text_UAE = recognizer.text.stages(ids.unflatten(0, (len(distinct), -1)))
    aligned = align(features_BTE, recognizer.config.align)
    cosine_BUA = stage_scores(aligned, text_UAE, recognizer.config.stage_cosine)
    logits_BUA = recipe.sharpness * cosine_BUA
    to_text = _contrast(logits_BUA, true_BUA)
    to_clip = _contrast(logits_BUA.transpose(0, 1), true_BUA.transpose(0, 1))
    level = (cosine_BUA.mean() - recipe.level) ** 2
    return (to_text + to_clip) / 2 + recipe.level_weight * level


def _contrast(logits_XYA: Tensor, true_XYA: Tensor) -> Tensor:
    """Return the mean cross-entropy over each X that has a true Y; its true ones are targets."""
    count_XA = true_XYA.sum(dim=1)
    log_share_XYA = logits_XYA.log_softmax(dim=1)
    loss_XA = -(log_share_XYA * true_XYA).sum(dim=1) / count_XA.clamp(min=1)
    return loss_XA[count_XA > 0].mean()
