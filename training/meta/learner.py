"""One learner: a recogniser whose trained parameters follow the episodes it is given.

A step is a function of recipe, weights and step number: every random choice is seeded by the
number of its episode, so that a resumed run, and a run of several processes, see the same.

Dimensions: S Q clips, T frames, L tokens, D token width, N classes, A stages, E feature width.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from model.adapters.bottleneck import Bottleneck
from model.backbones.attention import forward
from model.recognizer import Recognizer
from model.text import StageTexts
from model.views import alone_view
from training.data.episodes import Episode
from training.errors import InputError
from training.features.tokens import TokenSource, looked_at
from training.meta.losses import disagreement, distance, same_stages, stage_contrast
from training.meta.processes import Processes
from training.meta.recipe import FitRecipe


class EpisodeSource(Protocol):
    """Gives training episodes by number."""

    def draw(self, number: int) -> Episode:
        """Return episode `number`."""


class Learner:
    """A meta-training in progress.

    Args:
        recognizer: What learns; its frozen towers stay as they are.
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
        self.episodes, self.source = episodes, source
        self.stages = stages if recognizer.has_text else None
        self.processes = processes or Processes()
        self.half = half
        self.trained = trained_parameters(recognizer)
        self._start = deepcopy(recognizer.video) if recipe.near_start_textless else None
        self._alone = alone_view(recognizer.config.query_context)
        if not self.trained:
            raise InputError(
                f"The method {recognizer.name!r} has nothing to train; choose one with adapters."
            )
        self.average = {name: p.detach().clone() for name, p in self.trained.items()}
        self.optimizer = build_optimizer(list(self.trained.values()), recipe)
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
        with training_mode(self.recognizer, recipe):
            for number in self.processes.own(numbers):
                loss = self.loss(number) / recipe.per_step
                loss.backward()
                total += loss.detach()
        gradients = [p.grad for p in self.trained.values() if p.grad is not None]
        self.processes.add_up([total, *gradients])
        return float(total)

    def loss(self, number: int) -> Tensor:
        """Return the loss of training episode `number`."""
        recipe, episode = self.recipe, self.episodes.draw(number)
        rng = np.random.default_rng([recipe.seed, number, 1])
        torch.manual_seed(int(rng.integers(2**62)))  # of what is dropped
        clips = [*episode.support, *episode.query]
        known = len(clips)
        if recipe.consistency:
            clips += episode.query  # once more, by other draws
        draws = rng.integers(1, recipe.draws + 1, len(clips)).tolist() if recipe.draws else None
        described = self._described(episode.labels)
        with_text = rng.random() >= recipe.text_dropout and described
        device = self.recognizer.device
        tokens_BTLD = self.source.tokens(clips, draws).to(device, non_blocking=True).float()
        tokens_BTLD = tokens_BTLD[:, :, looked_at(tokens_BTLD.shape[2], recipe.patches, rng)]
        support, query = tokens_BTLD.tensor_split([len(episode.support)])
        wanted_Q = torch.tensor(episode.query_classes, device=device)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.half):
            classes_S = torch.tensor(episode.support_classes, device=device)
            text_NAE = self._text(episode.labels) if with_text else None
            features_GSTE, features_GQTE = self.recognizer.encode_episodes(
                support[None], classes_S, query[None]
            )
            features = features_GSTE[0], features_GQTE[0]
            scores = self.recognizer.score_features(features[0], classes_S, features[1], text_NAE)
        logits_QN, again_QN = (scores.logits_QN.float() / recipe.temperature).tensor_split(
            [len(wanted_Q)]
        )
        features_BTE, tokens_BTLD = torch.cat(features)[:known], tokens_BTLD[:known]
        loss = F.cross_entropy(logits_QN, wanted_Q, label_smoothing=recipe.smoothing)
        if recipe.stages and text_NAE is not None:
            loss = loss + recipe.stages * self._stage_contrast(features_BTE, episode, text_NAE)
        if recipe.consistency:
            loss = loss + recipe.consistency * disagreement(logits_QN, again_QN)
        near = recipe.near_frozen + (0.0 if described else recipe.near_frozen_textless)
        if near:
            frozen_BTE = self._aside(partial(frozen_features, self.recognizer), tokens_BTLD)
            loss = loss + near * distance(features_BTE, frozen_BTE)
        if self._start is not None and not described:
            start_BTE = self._aside(partial(self._start, view=self._alone), tokens_BTLD)
            loss = loss + recipe.near_start_textless * distance(features_BTE, start_BTE)
        return loss

    def _described(self, labels: Sequence[str]) -> bool:
        """Tell whether text takes part: all labels have stages whose words are known."""
        stages = self.stages or {}
        return all(
            label in stages and not self.recognizer.unknown_words(label, stages[label])
            for label in labels
        )

    def _text(self, labels: Sequence[str]) -> Tensor:
        assert self.stages is not None
        return self.recognizer.encode_text(labels, [self.stages[label] for label in labels])

    def _stage_contrast(self, features_BTE: Tensor, episode: Episode, text_NAE: Tensor) -> Tensor:
        assert self.stages is not None
        config = self.recognizer.config
        return stage_contrast(
            features_BTE,
            [*episode.support_classes, *episode.query_classes],
            text_NAE,
            same_stages([self.stages[label] for label in episode.labels]),
            config,
            config.scale / self.recipe.temperature,
        )

    @torch.no_grad()
    def _aside(self, encode: Callable[[Tensor], Tensor], tokens_BTLD: Tensor) -> Tensor:
        """Encode what nothing is learned from."""
        with torch.autocast(tokens_BTLD.device.type, torch.bfloat16, enabled=self.half):
            return encode(tokens_BTLD)

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
            "optimizer": self.optimizer.state_dict(),
        }

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.steps_done = state["steps_done"]
        self._load(state["trained"])
        self.average = {n: t.to(self.recognizer.device) for n, t in state["average"].items()}
        self.optimizer.load_state_dict(state["optimizer"])

    def _load(self, values: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self.trained.items():
                parameter.copy_(values[name])


def trained_parameters(recognizer: Recognizer) -> dict[str, torch.nn.Parameter]:
    """Return what is trained, by name: adapters, temporal embedding, matcher."""
    return {name: p for name, p in recognizer.named_parameters() if p.requires_grad}


@contextmanager
def training_mode(recognizer: Recognizer, recipe: FitRecipe) -> Iterator[None]:
    """Let the parts above the backbone drop what they may; the towers stay as they are."""
    modules = recognizer.learning_modules()
    for module in (part for whole in modules for part in whole.modules()):
        if isinstance(module, Bottleneck):
            module.dropout, module.drop_path = recipe.dropout, recipe.drop_path
    for module in modules:
        module.train()
    try:
        yield
    finally:
        for module in modules:
            module.eval()


def frozen_features(recognizer: Recognizer, tokens_BTLD: Tensor) -> Tensor:
    """Run the frozen blocks that the adapted ones stand for; features [B, T, E]."""
    tower, plain = recognizer.video.tower, len(recognizer.video.plain_blocks)
    tokens = tokens_BTLD.flatten(0, 1)
    for block in tower.blocks[plain:]:
        tokens = forward(block, tokens)
    return tower.head(tokens).unflatten(0, tokens_BTLD.shape[:2])


def build_optimizer(
    parameters: Sequence[torch.nn.Parameter], recipe: FitRecipe
) -> torch.optim.Optimizer:
    """Return the recipe's optimiser; biases and embeddings of places do not decay."""
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim == 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
        {"params": [p for p in parameters if p.ndim > 2], "weight_decay": 0.0},  # of places
    ]
    for group, share in zip(groups, (1.0, 1.0, recipe.place_rate), strict=True):
        group["share"] = share
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.lr)
    return torch.optim.AdamW(groups, lr=recipe.lr)


def rate(progress: float, recipe: FitRecipe) -> float:
    """Return the share of the learning rate at a share of the steps."""
    if progress < recipe.warmup:
        return (progress + 1e-3) / (recipe.warmup + 1e-3)
    if recipe.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (progress - recipe.warmup) / (1 - recipe.warmup)))
