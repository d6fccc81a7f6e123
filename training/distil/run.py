"""A student's training: steps, running average, one rate until the end, and going on after a kill.

The rate of learning is constant after its warm-up and falls to zero in the last part, so that a
finished run can be made longer: it goes on from where the fall began.

Dimensions: B clips, T frames, S pixels, C colours.
"""

import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from training.distil.batches import Batches
from training.distil.recipe import VideoRecipe
from training.distil.space import Space
from training.distil.student import Student, Weights, normalised
from training.distil.teacher import Reading
from training.meta.muon import Muon
from training.run_folder import write_state

STATE, BEFORE_FALL = "state.pt", "before_fall.pt"
SAVE_S = 120.0  # between two states


class VideoRun:
    """A distillation in progress.

    Args:
        student: Learns.
        batches: Of targets.
        space: Where features live.
        reading: The teacher's last layers.
        recipe: How it learns.
        weights: Of the parts of the loss.
        size: Pixels of a side, as the network takes them.
        colours: Mean and deviation of pixels, likewise.
    """

    def __init__(
        self,
        student: Student,
        batches: Batches,
        space: Space,
        reading: Reading,
        recipe: VideoRecipe,
        weights: Weights,
        size: int,
        colours: tuple[tuple[float, float, float], tuple[float, float, float]],
    ) -> None:
        self.student, self.batches = student.train(), batches
        self.space, self.reading = space, reading
        self.recipe, self.weights = recipe, weights
        self.size, self.colours = size, colours
        self.step = 0
        self.optimizers = build_optimizers(student, recipe)
        self.average = {n: p.detach().clone() for n, p in student.network.state_dict().items()}

    def advance(self, steps: int) -> dict[str, float]:
        """Take one step of a run of so many; return the parts of its loss."""
        factor = rate(self.step, steps, self.recipe)
        for optimizer in self.optimizers:
            optimizer.zero_grad()
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor
        recipe, told = self.recipe, dict[str, float]()
        whole = self.batches.files.frames
        for kinds, count, frames in (
            (("pictures",), recipe.pictures, min(recipe.window, whole)),
            (("clips", "clips", "synthetic"), recipe.clips, whole),
        ):
            batch = self.batches.draw(kinds, count, frames, self.step)
            pixels = normalised(batch.frames_BTSSC, self.size, *self.colours)
            parts = self.student(pixels, batch, self.space, self.reading, self.weights)
            torch.stack(list(parts.values())).sum().backward()
            told |= {f"{kinds[0]} {name}": float(part.detach()) for name, part in parts.items()}
        nn.utils.clip_grad_norm_(self.student.parameters(), recipe.clip)
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        decay = min(recipe.average, self.step / (10 + self.step))
        with torch.no_grad():
            for name, value in self.student.network.state_dict().items():
                self.average[name].lerp_(value, 1 - decay)
        return told

    def save(self, file: Path, steps: int) -> None:
        """Write the state of a run of so many steps.

        Raises:
            InputError: It cannot be written.
        """
        state = {
            "step": self.step,
            "steps": steps,
            "student": self.student.state_dict(),
            "average": self.average,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        write_state(file, state)

    def resume(self, file: Path) -> None:
        """Go on from a state."""
        state = torch.load(file, weights_only=True)
        self.step, self.average = state["step"], state["average"]
        self.student.load_state_dict(state["student"])
        for optimizer, own in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(own)


def build_optimizers(student: nn.Module, recipe: VideoRecipe) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices of stages and AdamW for all other parameters."""
    named = [(n, p) for n, p in student.named_parameters() if p.requires_grad]
    chosen = {n for n, p in named if p.ndim == 2 and ".stages." in n and ".time." not in n}
    muon = Muon(
        [p for name, p in named if name in chosen], lr=recipe.lr, weight_decay=recipe.weight_decay
    )
    adamw = torch.optim.AdamW(
        [p for name, p in named if name not in chosen],
        lr=recipe.rest_lr,
        weight_decay=recipe.weight_decay,
        betas=(0.9, 0.98),
    )
    optimizers: list[torch.optim.Optimizer] = [muon, adamw]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    return optimizers


def fall_begins(steps: int, recipe: VideoRecipe) -> int:
    """Return the step at which the rate of a run of so many steps begins to fall."""
    return round(steps * (1 - recipe.fall))


def rate(step: int, steps: int, recipe: VideoRecipe) -> float:
    """Return the share of the learning rate: up, level, then straight down to zero."""
    first = fall_begins(steps, recipe)
    level = min((step + 1) / recipe.warmup, 1.0)
    return level if step < first else level * (steps - step) / (steps - first)


def going_on(out: Path, steps: int, recipe: VideoRecipe) -> Path | None:
    """Return the state that a run of so many steps goes on from; None where it begins.

    The latest, unless its rate had begun to fall for another length: then the one before the fall.
    """
    latest, before = out / STATE, out / BEFORE_FALL
    if not latest.is_file():
        return None
    state = torch.load(latest, weights_only=True)
    fell = state["step"] > fall_begins(state["steps"], recipe)
    return before if fell and steps != state["steps"] else latest


def train(
    run: VideoRun,
    out: Path,
    steps: int,
    *,
    pause: Callable[[], bool],
    every: Callable[[dict[str, float]], None],
) -> bool:
    """Train until done, saving every few minutes; return whether all steps are done.

    Args:
        run: Fresh; goes on from the state in `out` where there is one.
        out: Folder of the state.
        steps: Of the whole run.
        pause: Asked after each step whether to save and stop for now.
        every: Told the parts of the loss after each step.
    """
    if (state := going_on(out, steps, run.recipe)) is not None:
        run.resume(state)
    saved = time.monotonic()
    while run.step < steps:
        if run.step == fall_begins(steps, run.recipe):
            run.save(out / BEFORE_FALL, steps)
        every(run.advance(steps))
        stop = pause()
        if stop or run.step == steps or time.monotonic() - saved > SAVE_S:
            run.save(out / STATE, steps)
            saved = time.monotonic()
        if stop:
            break
    return run.step >= steps
