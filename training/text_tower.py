"""The text stage of pretraining: a small text tower learns the locked image tower's space.

As in LiT (arXiv 2111.07991) only the text side learns. Each stage's text is contrasted with the
same stage's window of the clips of a batch, by the score that recognition uses.

Dimensions: C clips, B clips of a batch, U texts of a batch, A stages, T frames, E feature width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from model.matching.stages import align, stage_scores
from model.recognizer import Recognizer
from model.subactions import StageTexts
from training.captions import CaptionedClips


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRecipe:
    """How the text tower learns; stored with the result."""

    clips: int = 1200  # synthetic ones
    steps: int = 300
    batch: int = 128
    whole: float = 0.5  # chance of a clip's whole caption, not a part of it
    lr: float = 1e-3
    weight_decay: float = 0.1
    sharpness: float = 30.0  # of the cosines in the contrast
    level: float = 0.5  # mean cosine, so that the text factor stays positive
    level_weight: float = 4.0
    seed: int = 0


def train_text_tower(recognizer: Recognizer, clips: CaptionedClips, recipe: TextRecipe) -> float:
    """Train the recogniser's text tower in place; return the mean loss of the last tenth."""
    assert recognizer.text is not None
    tower = recognizer.text.tower.model.requires_grad_(True)
    optimizer = torch.optim.AdamW(
        tower.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, betas=(0.9, 0.98)
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=recipe.lr, total_steps=recipe.steps, pct_start=0.1, cycle_momentum=False
    )
    generator = torch.Generator().manual_seed(recipe.seed)
    losses = []
    for _ in tqdm(range(recipe.steps), desc="text tower", unit="step"):
        picks = torch.randint(len(clips.texts), (recipe.batch,), generator=generator).tolist()
        chosen = [draw_text(clips, pick, recipe.whole, generator) for pick in picks]
        true = [clips.texts[pick] + clips.partial[pick] for pick in picks]
        loss = text_loss(recognizer, clips.features_CTE[picks], chosen, true, recipe)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
    tower.requires_grad_(False)
    last = losses[-max(len(losses) // 10, 1) :]
    return sum(last) / len(last)


def draw_text(
    clips: CaptionedClips, clip: int, whole: float, generator: torch.Generator
) -> StageTexts:
    """Draw one of the texts that are true of a clip."""
    which, form = torch.rand(2, generator=generator).tolist()
    partial = clips.partial[clip]
    forms = partial if partial and which >= whole else clips.texts[clip]
    return forms[int(form * len(forms))]


def text_loss(
    recognizer: Recognizer,
    features_BTE: Tensor,
    texts: Sequence[StageTexts],
    true: Sequence[Sequence[StageTexts]],
    recipe: TextRecipe,
) -> Tensor:
    """Contrast clips with the distinct texts of their batch, stage by stage, both ways.

    Args:
        recognizer: Whose text tower learns.
        features_BTE: Frame features of the clips.
        texts: A text of each clip.
        true: All texts that are true of each clip, so that none of them counts as wrong.
        recipe: Sharpness and level.
    """
    assert recognizer.text is not None
    distinct = list(dict.fromkeys(texts))
    is_own_BU = torch.tensor(
        [[text in own for text in distinct] for own in map(set, true)],
        dtype=torch.float,
        device=features_BTE.device,
    )
    ids = recognizer.text.tower.tokenize([stage for text in distinct for stage in text])
    ids = ids.to(features_BTE.device)
    text_UAE = recognizer.text.stages(ids.unflatten(0, (len(distinct), -1)))
    aligned = align(features_BTE, recognizer.config.align)
    cosine_BUA = stage_scores(aligned, text_UAE, recognizer.config.stage_cosine)
    logits_ABU = recipe.sharpness * cosine_BUA.permute(2, 0, 1)
    of_clip_BU = is_own_BU / is_own_BU.sum(dim=1, keepdim=True)
    to_text = -(logits_ABU.log_softmax(dim=2) * of_clip_BU).sum(dim=2).mean()
    of_text_BU = is_own_BU / is_own_BU.sum(dim=0)
    to_clip = -(logits_ABU.log_softmax(dim=1) * of_text_BU).sum(dim=1).mean()
    level = (cosine_BUA.mean() - recipe.level) ** 2
    return (to_text + to_clip) / 2 + recipe.level_weight * level
