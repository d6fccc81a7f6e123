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

from model.adapters.bottleneck import Bottleneck
from model.recognizer import Recognizer
from model.text import StageTexts
from model.views import alone_view
from training.data.episodes import Episode
from training.errors import InputError
from training.features.tokens import TokenSource, looked_at
from training.meta.losses.names import LOSSES
from training.meta.losses.output import EpisodeOutput
from training.meta.optimizer import build_optimizer, rate, trained_parameters
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
        self.stages = _readable(recognizer, stages) if stages and recognizer.has_text else None
        self.processes = processes or Processes()
        self.half = half
        if self.stages is None and recognizer.text is not None:
            recognizer.text.requires_grad_(False)  # without a gradient it would only decay
        self.trained = trained_parameters(recognizer)
        self._start = deepcopy(recognizer.video) if recipe.near_start_textless else None
        if not self.trained:
            raise InputError(
                f"The method {recognizer.name!r} has nothing to train; choose one with adapters."
            )
        self.average = {name: p.detach().clone() for name, p in self.trained.items()}
        self.optimizer = build_optimizer(recognizer, recipe)
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
        """Return the loss of training episode `number`: the weighted sum of the recipe's losses."""
        output = self.output(number)
        weights = self.recipe.losses(described=output.described)
        terms = (weight * LOSSES[name](output) for name, weight in weights.items())
        return sum(terms, start=output.logits_QN.new_zeros(()))

    def output(self, number: int) -> EpisodeOutput:
        """Encode and score training episode `number`."""
        recipe, episode = self.recipe, self.episodes.draw(number)
        rng = np.random.default_rng([recipe.seed, number, 1])
        torch.manual_seed(int(rng.integers(2**62)))  # of what is dropped
        # Draws, text and tokens follow in this order: a resumed run repeats it.
        again = episode.query if recipe.consistency else ()  # once more, by other draws
        clips = [*episode.support, *episode.query, *again]
        draws = rng.integers(1, recipe.draws + 1, len(clips)).tolist() if recipe.draws else None
        described = self._described(episode.labels)
        with_text = rng.random() >= recipe.text_dropout and described
        tokens_BTLD = self._tokens(clips, draws, rng)
        with torch.autocast(self.recognizer.device.type, torch.bfloat16, enabled=self.half):
            text_NAE = self._text(episode.labels) if with_text else None
            features_BTE, logits_QN = self._score(tokens_BTLD, episode, text_NAE)
        known, asked = len(episode.support) + len(episode.query), len(episode.query)
        logits_QN, again_QN = (logits_QN.float() / recipe.temperature).tensor_split([asked])
        tokens_BTLD = tokens_BTLD[:known]
        return EpisodeOutput(
            logits_QN=logits_QN,
            again_QN=again_QN,
            wanted_Q=torch.tensor(episode.query_classes, device=logits_QN.device),
            features_BTE=features_BTE[:known],
            classes_B=(*episode.support_classes, *episode.query_classes),
            text_NAE=text_NAE,
            stages=self._stages(episode.labels) if described else (),
            described=described,
            config=self.recognizer.config,
            temperature=recipe.temperature,
            smoothing=recipe.smoothing,
            frozen_BTE=partial(self._aside, partial(frozen_features, self.recognizer), tokens_BTLD),
            start_BTE=partial(self._aside, self._at_start, tokens_BTLD),
        )

    def _tokens(
        self, clips: Sequence[int], draws: Sequence[int] | None, rng: np.random.Generator
    ) -> Tensor:
        """Return tokens [B, T, L, D], with the share of patches that the recipe looks at."""
        tokens_BTLD = self.source.tokens(clips, draws)
        tokens_BTLD = tokens_BTLD.to(self.recognizer.device, non_blocking=True).float()
        return tokens_BTLD[:, :, looked_at(tokens_BTLD.shape[2], self.recipe.patches, rng)]

    def _score(
        self, tokens_BTLD: Tensor, episode: Episode, text_NAE: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return features [B, T, E] of supports and queries, and logits [Q, N] of the queries."""
        support, query = tokens_BTLD.tensor_split([len(episode.support)])
        classes_S = torch.tensor(episode.support_classes, device=tokens_BTLD.device)
        support_GSTE, query_GQTE = self.recognizer.encode_episodes(
            support[None], classes_S, query[None]
        )
        (support_STE,), (query_QTE,) = support_GSTE, query_GQTE
        scores = self.recognizer.score_features(support_STE, classes_S, query_QTE, text_NAE)
        return torch.cat([support_STE, query_QTE]), scores.logits_QN

    def _described(self, labels: Sequence[str]) -> bool:
        """Tell whether text takes part: all labels have stages that the tower reads."""
        return self.stages is not None and all(label in self.stages for label in labels)

    def _stages(self, labels: Sequence[str]) -> tuple[StageTexts, ...]:
        assert self.stages is not None
        return tuple(self.stages[label] for label in labels)

    def _text(self, labels: Sequence[str]) -> Tensor:
        return self.recognizer.encode_text(labels, self._stages(labels))

    def _at_start(self, tokens_BTLD: Tensor) -> Tensor:
        """Encode clips, each alone, by the weights that the training started from."""
        assert self._start is not None
        return self._start(tokens_BTLD, alone_view(self.recognizer.config.query_context))

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


def _readable(recognizer: Recognizer, stages: Mapping[str, StageTexts]) -> dict[str, StageTexts]:
    return {
        label: texts
        for label, texts in stages.items()
        if recognizer.text_fault(label, texts) is None
    }


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
        tokens = block.run(tokens)
    return tower.head(tokens).unflatten(0, tokens_BTLD.shape[:2])
