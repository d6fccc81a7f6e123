"""One learner: a recogniser whose trained parameters follow the episodes it is given.

A step is a function of recipe, weights and step number: every random choice is seeded by the
number of its episode, so that a resumed run, and a run of several processes, see the same.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from model.adapters.bottleneck import Bottleneck
from model.config.method import MethodConfig
from model.recognizer import Recognizer
from model.text import StageTexts
from training.errors import InputError
from training.features.tokens import TokenSource
from training.meta.losses.names import LOSSES, Loss, learned_losses
from training.meta.optimizer import build_optimizer, rate, trained_parameters
from training.meta.passes import EpisodePasses, EpisodeSource
from training.meta.processes import Processes
from training.meta.recipe import FitRecipe


class Learner:
    """A meta-training in progress.

    Args:
        recognizer: What learns; what of it is frozen stays as it is.
        recipe: How.
        episodes: Training episodes.
        source: Tokens of the training clips.
        stages: Stage texts of each label; None trains the video score alone.
        processes: Who shares the work.
        half: Whether to compute in bfloat16 where that is safe.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        recipe: FitRecipe,
        episodes: EpisodeSource,
        source: TokenSource,
        *,
        stages: Mapping[str, StageTexts] | None = None,
        processes: Processes | None = None,
        half: bool = False,
    ) -> None:
        self.recognizer, self.recipe = recognizer, recipe
        self.passes = EpisodePasses(recognizer, recipe, episodes, source, stages=stages, half=half)
        self.processes = processes or Processes()
        _check_fit(recipe, recognizer.config, tuned=self.passes.tuned)
        if self.passes.stages is None and recognizer.text is not None:
            recognizer.text.requires_grad_(False)  # without a gradient it would only decay
        self.trained = trained_parameters(recognizer)
        if not self.trained:
            raise InputError(
                f"The method {recognizer.name!r} has nothing to train; choose one with adapters."
            )
        learned = learned_losses(recipe, recognizer, episodes.labels)
        self.losses = learned.to(recognizer.device)
        self.trained |= {
            f"losses.{name}": p for name, p in learned.named_parameters() if p.requires_grad
        }
        self.average = {name: p.detach().clone() for name, p in self.trained.items()}
        self.measured = measured_buffers(recognizer)
        self.optimizer = build_optimizer({"": recognizer, "losses": self.losses}, recipe)
        self.steps_done = 0

    def step(self) -> float:
        """Learn from the next `per_step` episodes; return their mean loss.

        Raises:
            InputError: the loss is not a number any more.
        """
        recipe = self.recipe
        loss = self.accumulate()
        if not math.isfinite(loss):
            raise InputError(
                f"The loss of step {self.steps_done} is {loss}; lower lr (now {recipe.lr:g}) and "
                "start again in another --out."
            )
        if recipe.clip:
            torch.nn.utils.clip_grad_norm_(self.trained.values(), recipe.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = group["share"] * recipe.lr * rate(self.steps_done / recipe.steps, recipe)
        self.optimizer.step()
        self.steps_done += 1
        self._follow()
        return loss

    def accumulate(self) -> float:
        """Put the gradient of the next `per_step` episodes into the parameters.

        Returns:
            Their mean loss; it and the gradient are those of all processes together.
        """
        recipe, first = self.recipe, self.steps_done * self.recipe.per_step
        numbers = range(first, first + recipe.per_step)
        for parameter in self.trained.values():
            parameter.grad = torch.zeros_like(parameter)
        total = torch.zeros(1, device=self.recognizer.device)
        self.losses.train()
        with training_mode(self.recognizer, recipe):
            for number in self.processes.own(numbers):
                loss = self.loss(number) / recipe.per_step
                loss.backward()
                total += loss.detach()
        gradients = [p.grad for p in self.trained.values() if p.grad is not None]
        measured = list(self.measured.values())
        for buffer in measured:
            buffer.div_(self.processes.count)
        self.processes.add_up([total, *gradients, *measured])
        return float(total)

    def loss(self, number: int) -> Tensor:
        """Return the loss of training episode `number`: the weighted sum of the recipe's losses."""
        output = self.passes.output(number)
        weights = self.recipe.losses(described=output.described)
        losses: dict[str, Loss] = {**LOSSES, **self.losses}
        terms = (weight * losses[name](output) for name, weight in weights.items())
        return sum(terms, start=output.logits_QN.new_zeros(()))

    def _follow(self) -> None:
        decay = min(self.recipe.average, self.steps_done / (10 + self.steps_done))
        with torch.no_grad():
            for name, parameter in self.trained.items():
                self.average[name].lerp_(parameter, 1 - decay)

    @contextmanager
    def averaged(self) -> Iterator[Recognizer]:
        """Lend the recogniser with the averaged weights; the learner's own come back after."""
        own = {name: p.detach().clone() for name, p in self.trained.items()}
        self._load(self.average)
        try:
            yield self.recognizer
        finally:
            self._load(own)

    def state(self) -> dict[str, Any]:
        """Return all that the next step depends on."""
        return {
            "steps_done": self.steps_done,
            "trained": {name: p.detach() for name, p in self.trained.items()},
            "average": self.average,
            "measured": self.measured,
            "optimizer": self.optimizer.state_dict(),
        }

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.steps_done = state["steps_done"]
        self._load(state["trained"])
        self.average = {n: t.to(self.recognizer.device) for n, t in state["average"].items()}
        for name, values in state.get("measured", {}).items():
            self.measured[name].copy_(values)
        self.optimizer.load_state_dict(state["optimizer"])

    def _load(self, values: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self.trained.items():
                parameter.copy_(values[name])


def learning_parts(recognizer: Recognizer) -> Iterator[nn.Module]:
    """Yield each module that learns or has no weights; frozen ones stay in evaluation mode."""
    for whole in recognizer.learning_modules():
        for part in whole.modules():
            own = list(part.parameters(recurse=False))
            if not own or any(parameter.requires_grad for parameter in own):
                yield part


def measured_buffers(recognizer: Recognizer) -> dict[str, Tensor]:
    """Return what learning modules measure of batches, such as running means, by name."""
    parts = learning_parts(recognizer)
    measuring = {id(buffer) for part in parts for buffer in part.buffers(recurse=False)}
    stored = recognizer.state_dict().keys()
    return {
        name: buffer
        for name, buffer in recognizer.named_buffers()
        if id(buffer) in measuring and name in stored and buffer.is_floating_point()
    }


def _check_fit(recipe: FitRecipe, config: MethodConfig, *, tuned: bool) -> None:
    """Refuse losses that do not see what the method scores.

    Nothing keeps what a trunk made before it learned, and the contrast of stages knows no norm.
    """
    if recipe.stages and config.align_norm:
        raise InputError(
            "The contrast of stages aligns frames without the method's norm; set stages to 0."
        )
    near = recipe.near_frozen, recipe.near_frozen_textless, recipe.near_start_textless
    if tuned and any(near):
        raise InputError(
            "The recipe holds features near those of a frozen tower, and this method's tower "
            "learns; set near_frozen, near_frozen_textless and near_start_textless to 0."
        )


@contextmanager
def training_mode(recognizer: Recognizer, recipe: FitRecipe) -> Iterator[None]:
    """Let what learns drop what it may, and measure its batches; frozen towers stay as they are."""
    parts = list(learning_parts(recognizer))
    blocks, chances = recognizer.video.adapted, {}
    if recipe.drop_path_grows:
        chances = {
            part: recipe.drop_path * place / max(1, len(blocks) - 1)
            for place, block in enumerate(blocks)
            for part in block.modules()
        }
    for part in parts:
        if isinstance(part, Bottleneck):
            part.dropout = recipe.dropout
            part.drop_path = chances.get(part, recipe.drop_path) if part.droppable else 0.0
        part.training = True
    try:
        yield
    finally:
        recognizer.eval()
