"""The motion stage of pretraining: adapters learn to name the motion of each stage of a clip.

The features of a frozen tower show what is seen and hardly what it does. Without this stage text
cannot describe motions, and episodes of labels that differ only in order teach nothing
(training/experiments/orders.md). A linear map from stages to motions learns along with the adapters
and is thrown away; a text tower that is taught afterwards finds motions in the features. Learning
motions costs accuracy on other clips, so adapters can be held to the features they had there.

Dimensions: B clips, A stages, T frames, L tokens, D token width, E feature width, M motions.
"""

import math
from collections.abc import Sequence
from copy import deepcopy
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.encoder import VideoEncoder
from model.matching.stages import align, stage_means
from model.precision import in_float32
from model.recognizer import Recognizer
from model.slots import View
from model.views import alone_view
from training.compact.captions import CaptionedClips
from training.compact.recipes import MotionRecipe
from training.features.tokens import looked_at
from training.meta.losses.nearness import distance
from training.meta.optimizer import trained_parameters
from training.progress import progress
from training.synthetic.actions import Action
from training.synthetic.motions import MOTIONS


class _Held(NamedTuple):
    """Other clips, and the encoder whose features of them are to stay."""

    start: VideoEncoder
    clips: CaptionedClips
    alone: View

    @classmethod
    def at_start(cls, recognizer: Recognizer, clips: CaptionedClips) -> "_Held":
        """Keep the encoder as it is now."""
        return cls(deepcopy(recognizer.video), clips, alone_view(recognizer.config.query_context))

    def moved(self, video: VideoEncoder, recipe: MotionRecipe, rng: np.random.Generator) -> Tensor:
        """Return how far the features of some clips are from those of the start."""
        picks = rng.integers(len(self.clips.subjects), size=recipe.keep_batch)
        tokens_BTLD = _seen(self.clips, picks, recipe, rng).to(next(video.parameters()).device)
        with torch.no_grad():
            before_BTE = self.start(tokens_BTLD, self.alone)
        return distance(video(tokens_BTLD, self.alone), before_BTE)


def train_motions(
    recognizer: Recognizer,
    clips: CaptionedClips,
    recipe: MotionRecipe,
    *,
    others: CaptionedClips | None = None,
    half: bool = False,
) -> float:
    """Train the recogniser's visual adapters in place; clips do not see each other.

    Args:
        recognizer: Whose adapters learn.
        clips: Synthetic ones.
        recipe: How.
        others: Clips whose features are held to those of the start with the weight `recipe.keep`.
        half: Whether to compute in bfloat16 where that is safe.

    Returns:
        The share of stages named rightly in the last tenth of the steps.
    """
    torch.manual_seed(recipe.seed)
    head = nn.Linear(recognizer.video.tower.features, len(MOTIONS)).to(recognizer.device)
    adapters = {n: p for n, p in trained_parameters(recognizer).items() if n.startswith("video.")}
    optimizer = torch.optim.AdamW(_groups(adapters, head, recipe), weight_decay=0.0)
    rng = np.random.default_rng(recipe.seed)
    held = _Held.at_start(recognizer, others) if recipe.keep and others else None
    shares = []
    for step in progress(range(recipe.steps), desc="motions", unit="step"):
        for group in optimizer.param_groups:
            group["lr"] = group["share"] * recipe.lr * rate(step, recipe.steps, recipe.warmup)
        with torch.autocast(recognizer.device.type, torch.bfloat16, enabled=half):
            loss, share = _name_motions(recognizer, head, clips, recipe, rng)
            if held is not None:
                loss = loss + recipe.keep * held.moved(recognizer.video, recipe, rng)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(adapters.values(), recipe.clip)
        optimizer.step()
        shares.append(share)
    return float(np.mean(shares[-max(len(shares) // 10, 1) :]))


def _name_motions(
    recognizer: Recognizer,
    head: nn.Linear,
    clips: CaptionedClips,
    recipe: MotionRecipe,
    rng: np.random.Generator,
) -> tuple[Tensor, float]:
    """Return the loss of some clips, and the share of their stages that were named rightly."""
    picks = rng.integers(len(clips.subjects), size=recipe.batch)
    tokens_BTLD = _seen(clips, picks, recipe, rng).to(recognizer.device)
    features_BAE = stage_features(recognizer, tokens_BTLD)
    with in_float32(recognizer.device):
        logits_BAM = head(features_BAE)
    named_BA = motion_numbers([clips.subjects[pick] for pick in picks]).to(recognizer.device)
    loss = F.cross_entropy(logits_BAM.flatten(0, 1), named_BA.flatten())
    return loss, (logits_BAM.argmax(dim=2) == named_BA).float().mean().item()


def stage_features(recognizer: Recognizer, tokens_BTLD: Tensor) -> Tensor:
    """Return the mean feature of each stage [B, A, E], as scores see it."""
    config = recognizer.config
    features_BTE = recognizer.video(tokens_BTLD, alone_view(config.query_context))
    with in_float32(recognizer.device):
        return stage_means(align(features_BTE.float(), config.align), config.stages)


def motion_numbers(subjects: Sequence[object]) -> Tensor:
    """Return the number of each stage's motion [B, A]."""
    names = list(MOTIONS)
    actions = [subject for subject in subjects if isinstance(subject, Action)]
    if len(actions) < len(subjects):
        raise ValueError("Labelled clips have no motions; train on synthetic ones alone.")
    return torch.tensor([[names.index(motion) for motion in a.motions] for a in actions])


def _seen(
    clips: CaptionedClips, picks: np.ndarray, recipe: MotionRecipe, rng: np.random.Generator
) -> Tensor:
    """Return the tokens [B, T, L, D] of some clips that a step looks at."""
    tokens_BTLD = clips.tokens_CTLD[picks]
    return tokens_BTLD[:, :, looked_at(tokens_BTLD.shape[2], recipe.patches, rng)].float()


def _groups(
    adapters: dict[str, nn.Parameter], head: nn.Linear, recipe: MotionRecipe
) -> list[dict[str, object]]:
    places = [p for p in adapters.values() if p.ndim > 2]
    rest = [p for p in adapters.values() if p.ndim <= 2]
    return [
        {"params": rest, "share": 1.0},
        {"params": places, "share": recipe.place_rate},
        {"params": list(head.parameters()), "share": recipe.head_rate},
    ]


def rate(step: int, steps: int, warmup: int) -> float:
    """Return the share of the learning rate: up, then along a cosine down to zero."""
    return min(1.0, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * step / steps))
