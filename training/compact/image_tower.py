"""The image stage of pretraining: rounds of fresh views, each used a few times, until done.

A round is views with their teacher's tokens, computed once and then visited in several orders. It
is a function of seed and number, so a run that was killed draws the same rounds again and ends
with the same weights.

Dimensions: V views of a round, C channels, S pixels, K kept patch tokens.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from model.backbones.timm import TimmImageTower
from training.compact.augmentation import Augmentation, draw_views
from training.compact.distillation import Distiller, matched_depths, measure_scales, teacher_states
from training.data.frame_folders import FramePools

STATE = "image_state.pt"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecipe:
    """How the image tower is distilled; stored with the result."""

    steps: int = 3600
    batch: int = 32
    lr: float = 2e-3  # of block matrices, by Muon
    rest_lr: float = 1e-3  # of everything else, by AdamW
    weight_decay: float = 0.02
    warmup: float = 0.03  # share of the steps
    views: int = 1024  # V, fresh ones in a round
    reuse: int = 4  # visits to each view
    keep: float = 0.5  # share of patch tokens seen in the first part
    full_from: float = 0.88  # share of the steps after which all patch tokens are seen
    inner: float = 1.0  # weight of inner depths at the end; it starts at 1
    average: float = 0.99  # decay of the running average of the weights
    clip: float = 1.0  # largest norm of a gradient
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Round:
    """Views, which patches of them are seen, and what the teacher makes of them."""

    pixels_VCSS: Tensor  # uint8
    keep_VK: Tensor | None
    states: list[Tensor]  # bfloat16


class ImageRun:
    """A distillation in progress: student, average, optimisers and step.

    Args:
        student: A tower at random.
        teacher: A frozen tower on the same patch grid.
        pools: Pictures to draw views from, on the device to train on.
        recipe: How.
        half: Whether to compute in bfloat16 where that is safe.
    """

    def __init__(
        self,
        student: TimmImageTower,
        teacher: TimmImageTower,
        pools: FramePools,
        recipe: ImageRecipe,
        *,
        half: bool,
    ) -> None:
        self.teacher, self.pools, self.recipe, self.half = teacher, pools, recipe, half
        self.device = pools.pictures_NHWC.device
        self.depths = matched_depths(len(student.blocks), len(teacher.blocks))
        self.step, self.number, self.loss = 0, 0, math.nan
        self.round = self.draw_round()
        self.distiller = Distiller(
            student.model.requires_grad_(True).train(), measure_scales(self.round.states)
        ).to(self.device)
        self.optimizers = build_optimizers(self.distiller, recipe)
        self.average = {n: p.detach().clone() for n, p in student.model.named_parameters()}

    def draw_round(self) -> Round:
        """Draw round `number`: a function of recipe, pictures and number."""
        recipe = self.recipe
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + self.number)
        picks = self.pools.draw(recipe.views, generator)
        full = self.step >= recipe.full_from * recipe.steps
        patches = int(self.teacher.model.patch_embed.num_patches)
        keep = None
        if not full and recipe.keep < 1:
            scores = torch.rand(recipe.views, patches, generator=generator)
            keep = scores.argsort(dim=1)[:, : round(recipe.keep * patches)].to(self.device)
        pixels, states = [], []
        for index in torch.arange(recipe.views).split(64):
            views = draw_views(
                self.pools.pictures_NHWC, picks[index], self.teacher.size, generator, Augmentation()
            )
            kept = None if keep is None else keep[index.to(self.device)]
            with self.autocast():
                made = teacher_states(
                    self.teacher.model, self._normalised(views), kept, self.depths
                )
            pixels.append(views)
            states.append([state.bfloat16() for state in made])
        joined = [torch.cat(parts) for parts in zip(*states, strict=True)]
        return Round(torch.cat(pixels), keep, joined)

    def autocast(self) -> torch.autocast:
        """Return a fresh context for the forward pass."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.half)

    def run_round(self) -> Iterator[float]:
        """Visit every view of the current round `reuse` times; yield the loss of each step."""
        recipe = self.recipe
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + self.number + 500_000)
        for _ in range(recipe.reuse):
            order = torch.randperm(recipe.views, generator=generator)
            for index in order.split(recipe.batch):
                if self.step < recipe.steps:
                    yield self._train_step(index.to(self.device))
        self.number += 1
        if self.step < recipe.steps:
            self.round = self.draw_round()

    def _train_step(self, index: Tensor) -> float:
        now = self.round
        kept = None if now.keep_VK is None else now.keep_VK[index]
        progress = self.step / self.recipe.steps
        factor = rate(progress, self.recipe.warmup)
        inner = 1 + (self.recipe.inner - 1) * progress
        for optimizer in self.optimizers:
            optimizer.zero_grad()
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor
        with self.autocast():
            pixels = self._normalised(now.pixels_VCSS[index])
            loss = self.distiller(pixels, kept, [state[index] for state in now.states], inner)
        loss.backward()
        nn.utils.clip_grad_norm_(self.distiller.parameters(), self.recipe.clip)
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        decay = min(self.recipe.average, self.step / (10 + self.step))
        with torch.no_grad():
            for name, parameter in self.distiller.vit.named_parameters():
                self.average[name].lerp_(parameter, 1 - decay)
        return float(loss.detach())

    def _normalised(self, views_BCSS: Tensor) -> Tensor:
        mean, std = (
            torch.tensor(values, device=self.device).view(1, 3, 1, 1)
            for values in (self.teacher.mean, self.teacher.std)
        )
        return (views_BCSS.float() / 255 - mean) / std

    def save(self, file: Path) -> None:
        """Write the state aside and rename it; only between rounds."""
        state = {
            "step": self.step,
            "number": self.number,
            "loss": self.loss,
            "distiller": self.distiller.state_dict(),
            "average": self.average,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        aside = file.with_suffix(".new")
        torch.save(state, aside)
        aside.replace(file)

    def resume(self, file: Path) -> None:
        """Go on from a state."""
        state = torch.load(file, map_location=self.device, weights_only=True)
        self.step, self.number, self.loss = state["step"], state["number"], state["loss"]
        self.distiller.load_state_dict(state["distiller"])
        self.average = state["average"]
        for optimizer, own in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(own)
        if self.step < self.recipe.steps:
            self.round = self.draw_round()


def build_optimizers(distiller: Distiller, recipe: ImageRecipe) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices of blocks and AdamW for all other parameters."""
    named = [(n, p) for n, p in distiller.named_parameters() if p.requires_grad]
    matrices = [p for name, p in named if p.ndim == 2 and ".blocks." in name]
    others = [p for name, p in named if not (p.ndim == 2 and ".blocks." in name)]
    muon: Any = torch.optim.Muon(
        matrices,
        lr=recipe.lr,
        weight_decay=recipe.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    adamw = torch.optim.AdamW(
        others, lr=recipe.rest_lr, weight_decay=recipe.weight_decay, betas=(0.9, 0.98)
    )
    for optimizer in (muon, adamw):
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    return [muon, adamw]


def rate(progress: float, warmup: float) -> float:
    """Return the share of the learning rate at a share of the steps: up, then half a cosine."""
    if progress < warmup:
        return (progress + 1e-3) / (warmup + 1e-3)
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def train_image_tower(
    run: ImageRun, out: Path, *, max_seconds: float, tell: Callable[[str], None]
) -> bool:
    """Train until done, saving after each round; return whether all steps are done.

    Args:
        run: Fresh; goes on from the state in `out` where there is one.
        out: Folder of the state.
        max_seconds: After which to stop at the end of a round.
        tell: Takes a line for people.
    """
    start = time.monotonic()
    if (out / STATE).is_file():
        run.resume(out / STATE)
        tell(f"going on from step {run.step} of {run.recipe.steps}")
    with tqdm(total=run.recipe.steps, initial=run.step, desc="image tower", unit="step") as bar:
        while run.step < run.recipe.steps:
            for loss in run.run_round():
                run.loss = loss
                bar.update()
                bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
            run.save(out / STATE)
            if run.step < run.recipe.steps and time.monotonic() - start > max_seconds:
                return False
    return True
