"""The motion stage of pretraining: adapters learn to name what happens in each stage of a clip.

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
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from model.encoder import VideoEncoder
from model.matching.stages import align, stage_means
from model.recognizer import Recognizer
from model.slots import View
from model.views import alone_view
from training.compact.captions import CaptionedClips
from training.features.tokens import looked_at
from training.meta.learner import trained_parameters
from training.meta.losses import distance
from training.synthetic.actions import Action
from training.synthetic.motions import MOTIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class MotionRecipe:
    """How adapters learn motions; stored with the result."""

    clips: int = 1600  # synthetic ones
    steps: int = 1000
    batch: int = 12
    lr: float = 3e-3
    place_rate: float = 5.0  # rate of the embedding of frame places, as a multiple of lr
    head_rate: float = 3.0  # and of the linear map
    warmup: int = 20  # steps
    clip: float = 1.0  # largest norm of a gradient
    patches: float = 0.5  # share of a clip's patch tokens that a step looks at
    keep: float = 0.0  # weight of 1 - cosine to what was made of other clips before
    keep_batch: int = 8  # of those
    seed: int = 0


def train_motions(
    recognizer: Recognizer,
    clips: CaptionedClips,
    recipe: MotionRecipe,
    *,
    others: CaptionedClips | None = None,
    half: bool = False,
) -> float:
    """Train the recogniser's visual adapters in place.

    Args:
        recognizer: Whose adapters learn; clips do not see each other.
        clips: Synthetic ones.
        recipe: How.
        others: Clips whose features are to stay what they are at the start, where it says so.
        half: Whether to compute in bfloat16 where that is safe.

    Returns:
        The share of stages named rightly in the last tenth of the steps.
    """
    device = recognizer.device
    torch.manual_seed(recipe.seed)
    head = nn.Linear(recognizer.video.tower.features, len(MOTIONS)).to(device)
    adapters = {
        name: p for name, p in trained_parameters(recognizer).items() if name.startswith("video.")
    }
    optimizer = torch.optim.AdamW(_groups(adapters, head, recipe), weight_decay=0.0)
    named_CA = motion_numbers(clips.subjects).to(device)
    rng = np.random.default_rng(recipe.seed)
    start = deepcopy(recognizer.video)
    alone = alone_view(recognizer.config.query_context)
    shares = []
    for step in tqdm(range(recipe.steps), desc="motions", unit="step"):
        for group in optimizer.param_groups:
            group["lr"] = group["share"] * recipe.lr * _rate(step, recipe)
        picks = rng.integers(len(clips.subjects), size=recipe.batch)
        tokens_BTLD = seen(clips, picks, recipe, rng).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            logits_BAM = head(stage_features(recognizer, tokens_BTLD))
            loss = F.cross_entropy(logits_BAM.flatten(0, 1), named_CA[picks].flatten())
            if recipe.keep and others is not None:
                other_picks = rng.integers(len(others.subjects), size=recipe.keep_batch)
                other_BTLD = seen(others, other_picks, recipe, rng).to(device)
                loss = loss + recipe.keep * moved(recognizer.video, start, other_BTLD, alone)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(adapters.values(), recipe.clip)
        optimizer.step()
        shares.append((logits_BAM.argmax(dim=2) == named_CA[picks]).float().mean().item())
    last = shares[-max(len(shares) // 10, 1) :]
    return sum(last) / len(last)


def seen(
    clips: CaptionedClips, picks: np.ndarray, recipe: MotionRecipe, rng: np.random.Generator
) -> Tensor:
    """Return the tokens [B, T, L, D] of some clips that a step looks at."""
    tokens_BTLD = clips.tokens_CTLD[picks]
    return tokens_BTLD[:, :, looked_at(tokens_BTLD.shape[2], recipe.patches, rng)].float()


def moved(video: VideoEncoder, start: VideoEncoder, tokens_BTLD: Tensor, alone: View) -> Tensor:
    """Return how far frame features of clips, each by itself, are from what they were."""
    with torch.no_grad():
        before_BTE = start(tokens_BTLD, alone)
    return distance(video(tokens_BTLD, alone), before_BTE)


def stage_features(recognizer: Recognizer, tokens_BTLD: Tensor) -> Tensor:
    """Return the mean feature of each stage [B, A, E], as scores see it."""
    config = recognizer.config
    features_BTE = recognizer.video(tokens_BTLD, alone_view(config.query_context))
    return stage_means(align(features_BTE, config.align), config.stages)


def motion_numbers(subjects: Sequence[object]) -> Tensor:
    """Return which motion each stage shows [B, A]."""
    names = list(MOTIONS)
    actions = [subject for subject in subjects if isinstance(subject, Action)]
    if len(actions) < len(subjects):
        raise ValueError("Labelled clips have no motions; train on synthetic ones alone.")
    return torch.tensor([[names.index(motion) for motion in a.motions] for a in actions])


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


def _rate(step: int, recipe: MotionRecipe) -> float:
    fall = 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
    return min(1.0, (step + 1) / recipe.warmup) * fall
