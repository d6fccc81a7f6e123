"""The image stage of pretraining: a small tower learns a frozen teacher's tokens at every depth.

Views of a round are computed once with their teacher's tokens and then visited in several orders. A
run that was killed goes on from the last whole round and ends with the same weights.
"""

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.backbones.views.timm import TimmImageTower
from training.compact.distillation import Distiller, matched_depths, measure_scales
from training.compact.pictures import FramePools
from training.compact.recipes import ImageRecipe
from training.compact.teacher import Round, Rounds
from training.progress import progress
from training.run_folder import write_state

STATE = "image_state.pt"


class ImageRun:
    """A distillation in progress: student, running average, optimisers and step.

    Args:
        student: A tower with random weights.
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
        self.recipe, self.half = recipe, half
        self.device = pools.pictures_NHWC.device
        depths = matched_depths(len(student.blocks), len(teacher.blocks))
        self.rounds = Rounds(
            teacher, pools, depths, views=recipe.views, seed=recipe.seed, half=half
        )
        self.step, self.number, self.loss = 0, 0, math.nan
        self.round = self._draw_round()
        self.distiller = Distiller(
            student.model.requires_grad_(True).train(), measure_scales(self.round.states_VLD)
        ).to(self.device)
        self.optimizers = build_optimizers(self.distiller, recipe)
        self.average = {n: p.detach().clone() for n, p in student.model.named_parameters()}

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
            self.round = self._draw_round()

    def save(self, file: Path) -> None:
        """Write the state; only between rounds.

        Raises:
            InputError: It cannot be written.
        """
        state = {
            "step": self.step,
            "number": self.number,
            "loss": self.loss,
            "distiller": self.distiller.state_dict(),
            "average": self.average,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        write_state(file, state)

    def resume(self, file: Path) -> None:
        """Go on from a state."""
        state = torch.load(file, map_location=self.device, weights_only=True)
        self.step, self.number, self.loss = state["step"], state["number"], state["loss"]
        self.distiller.load_state_dict(state["distiller"])
        self.average = state["average"]
        for optimizer, own in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(own)
        if self.step < self.recipe.steps:
            self.round = self._draw_round()

    def _draw_round(self) -> Round:
        full = self.step >= self.recipe.full_from * self.recipe.steps
        return self.rounds.draw(self.number, 1.0 if full else self.recipe.keep)

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
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            pixels = self.rounds.normalised(now.pixels_VCSS[index])
            loss = self.distiller(pixels, kept, [state[index] for state in now.states_VLD], inner)
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
    with progress(total=run.recipe.steps, initial=run.step, desc="image tower", unit="step") as bar:
        while run.step < run.recipe.steps:
            for loss in run.run_round():
                run.loss = loss
                bar.update()
                bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
            run.save(out / STATE)
            if run.step < run.recipe.steps and time.monotonic() - start > max_seconds:
                return False
    return True
