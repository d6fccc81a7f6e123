"""A student's training: steps, running average, one rate until the end, and going on after a kill.

The rate of learning is constant after its warm-up and falls to zero in the last part, so that a
finished run can be made longer: it goes on from where the fall began.

Dimensions: B clips, T frames, C colours, S pixels.
"""

import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from model.backbones.packaged.causal import CausalNetwork
from training.distil.imitation import Lesson, apart, reading_error, whole
from training.distil.recipe import VideoRecipe
from training.distil.views import Views
from training.run_folder import write_state

STATE, BEFORE_FALL = "state.pt", "before_fall.pt"
SAVE_S = 120.0  # between two states
BETAS = (0.9, 0.98)


class VideoRun:
    """A distillation in progress.

    Args:
        network: Learns.
        lesson: What the teacher says of each batch, and how that is measured.
        views: Where batches come from.
        recipe: How the network learns.
    """

    def __init__(
        self,
        network: CausalNetwork,
        lesson: Lesson,
        views: Views,
        recipe: VideoRecipe,
    ) -> None:
        self.network = network.train()
        self.lesson, self.views, self.recipe = lesson, views, recipe
        self.step = 0
        self.optimizer = torch.optim.AdamW(
            network.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, betas=BETAS
        )
        self.average = {n: p.detach().clone() for n, p in network.state_dict().items()}

    def advance(self, steps: int) -> dict[str, float]:
        """Take one step of a run of so many; return the parts of its error."""
        recipe = self.recipe
        lr = recipe.lr if self.step < recipe.apart else recipe.whole_lr
        for group in self.optimizer.param_groups:
            group["lr"] = lr * rate(self.step, steps, recipe)
        self.optimizer.zero_grad()
        told = self._learn(self.views.draw(self.step))
        nn.utils.clip_grad_norm_(self.network.parameters(), recipe.clip)
        self.optimizer.step()
        self.step += 1
        decay = min(recipe.average, self.step / (10 + self.step))
        with torch.no_grad():
            for name, value in self.network.state_dict().items():
                self.average[name].lerp_(value, 1 - decay)
        return told

    def _learn(self, pixels_BTCSS: Tensor) -> dict[str, float]:
        seen = self.lesson.teacher(pixels_BTCSS)
        told = dict[str, float]()
        if self.step < self.recipe.apart:
            for name, error in apart(self.network, pixels_BTCSS, seen, self.lesson):
                error.backward()  # at once, so that one block's cells are held at a time
                told[name] = float(error.detach())
        else:
            parts = whole(self.network, pixels_BTCSS, seen, self.lesson)
            torch.stack(list(parts.values())).sum().backward()
            told |= {name: float(part.detach()) for name, part in parts.items()}
        generator = torch.Generator().manual_seed(self.recipe.seed + self.step)
        error = reading_error(self.network, seen, self.lesson, generator)
        error.backward()
        return told | {"reading": float(error.detach())}

    def save(self, file: Path, steps: int) -> None:
        """Write the state of a run of so many steps.

        Raises:
            InputError: It cannot be written.
        """
        state = {
            "step": self.step,
            "steps": steps,
            "network": self.network.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
        }
        write_state(file, state)

    def resume(self, file: Path) -> None:
        """Go on from a state."""
        state = torch.load(file, weights_only=True)
        self.step, self.average = state["step"], state["average"]
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])


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
