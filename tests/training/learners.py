"""A learner on tiny random clips, the same in every process that makes one."""

from pathlib import Path

import torch
from torch import Tensor

from model.config.method import QueryContext
from model.text import template_stages
from tests.model.tiny import LABELS, clips, tiny_recognizer
from training.data.datasets import LabelledClip
from training.data.episodes import EpisodePlan, EpisodeSampler
from training.meta.learner import Learner
from training.meta.processes import Processes
from training.meta.recipe import FitRecipe

CLASSES, SHOWN = 4, 5  # classes, clips of each

RECIPE = FitRecipe(
    episodes=12,
    per_step=4,
    ways=(2, 3),
    shots=(1, 2),
    queries=2,
    lr=1e-2,
    dropout=0.2,
    draws=0,
    clip=0.0,
    text_dropout=0.3,
)


class _Tokens:
    """The trunk's output of clips that were made, not read."""

    def __init__(self, tokens_CTLD: Tensor) -> None:
        self.tokens_CTLD = tokens_CTLD

    def tokens(self, clips: list[int], draws: list[int] | None = None) -> Tensor:
        shown = self.tokens_CTLD[list(clips)]
        if draws is None:
            return shown
        return torch.stack(
            [
                one + 0.3 * torch.randn(one.shape, generator=torch.Generator().manual_seed(draw))
                for one, draw in zip(shown, draws, strict=True)
            ]
        )


def labelled() -> list[LabelledClip]:
    return [
        LabelledClip(Path(f"{label}-{take}"), label, f"{label}-{take}")
        for label in LABELS[:CLASSES]
        for take in range(SHOWN)
    ]


def tiny_learner(
    recipe: FitRecipe = RECIPE,
    *,
    preset: str = "task_adapter_pp",
    query_context: QueryContext = "support",
    processes: Processes | None = None,
    **changes: object,
) -> Learner:
    recognizer = tiny_recognizer(preset, trained=False, query_context=query_context, **changes)
    with torch.inference_mode():
        look = clips(CLASSES, seed=4).repeat_interleave(SHOWN, dim=0).float()
        noise = clips(CLASSES * SHOWN, seed=5).float()
        tokens = recognizer.trunk(((look + noise) / 2).to(torch.uint8))
    found = labelled()
    plan = EpisodePlan(recipe.ways, recipe.shots, recipe.queries)
    return Learner(
        recognizer,
        recipe,
        EpisodeSampler(found, plan, recipe.seed),
        _Tokens(tokens.clone()),
        stages={label: template_stages(label, recognizer.config.stages) for label in LABELS},
        processes=processes,
    )
