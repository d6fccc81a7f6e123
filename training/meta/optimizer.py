"""What is trained of a recogniser, by which optimisers, and at what rate."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from model.recognizer import Recognizer
from training.meta.recipe import Apart, FitRecipe

NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)
EMBEDDING = re.compile("embed|token|position")


def trained_parameters(recognizer: Recognizer) -> dict[str, torch.nn.Parameter]:
    """Return what is trained, by name: adapters, temporal embedding, matcher."""
    return {name: p for name, p in recognizer.named_parameters() if p.requires_grad}


class Optimizers:
    """Optimisers of different weights, used as one.

    Args:
        parts: One or more, each with groups that know their `share` of the recipe's rate.
    """

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self.parts = parts

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all."""
        return [group for part in self.parts for group in part.param_groups]

    def step(self) -> None:
        """Take a step with each."""
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """Return what the next step depends on; of a single one as that one has it."""
        first, *others = (part.state_dict() for part in self.parts)
        return {**first, "apart": others} if others else first

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        first = {name: held for name, held in state.items() if name != "apart"}
        for part, held in zip(self.parts, [first, *state.get("apart", ())], strict=True):
            part.load_state_dict(held)


def build_optimizer(roots: Mapping[str, nn.Module], recipe: FitRecipe) -> Optimizers:
    """Return the recipe's optimisers of all trained parameters.

    Matrices and convolution kernels decay. Biases and norms do not, nor do embeddings of places
    and tokens, which have a rate of their own.

    Args:
        roots: What learns, by the prefix that its names get in the recipe's `rates`.
        recipe: Which optimiser, and its rates.
    """
    shares = {"matrices": 1.0, "vectors": 1.0, "places": recipe.place_rate}
    parts: dict[tuple[str, float], list[nn.Parameter]] = {(kind, 1.0): [] for kind in shares}
    apart: dict[Apart, dict[str, list[nn.Parameter]]] = {}
    named = (each for prefix, root in roots.items() for each in root.named_modules(prefix=prefix))
    for path, module in named:
        for name, parameter in module.named_parameters(path, recurse=False):
            if not parameter.requires_grad:
                continue
            kind = _kind(module, name, parameter)
            if own := next((one for one in recipe.apart if name.startswith(one.names)), None):
                apart.setdefault(own, {}).setdefault(kind, []).append(parameter)
            else:
                parts.setdefault((kind, _rate(name, recipe)), []).append(parameter)
    groups: list[dict[str, Any]] = [
        {
            "params": parameters,
            "weight_decay": recipe.weight_decay if kind == "matrices" else 0.0,
            "share": shares[kind] * own_rate,
        }
        for (kind, own_rate), parameters in parts.items()
    ]
    return Optimizers(
        [_optimizer(groups, recipe)]
        + [_optimizer(_groups_apart(kinds, own, recipe), own) for own, kinds in apart.items()]
    )


def _groups_apart(
    kinds: Mapping[str, list[nn.Parameter]], own: Apart, recipe: FitRecipe
) -> list[dict[str, Any]]:
    return [
        {
            "params": parameters,
            "weight_decay": own.weight_decay if kind == "matrices" else 0.0,
            "share": own.lr / recipe.lr,
        }
        for kind, parameters in kinds.items()
    ]


def _optimizer(groups: list[dict[str, Any]], asked: FitRecipe | Apart) -> torch.optim.Optimizer:
    match asked.optimizer:
        case "sgd":
            return torch.optim.SGD(groups, lr=asked.lr, momentum=asked.momentum)
        case "adam":
            return torch.optim.Adam(groups, lr=asked.lr, betas=asked.betas)
        case "adamw":
            return torch.optim.AdamW(groups, lr=asked.lr, betas=asked.betas)


def _kind(module: nn.Module, name: str, parameter: nn.Parameter) -> str:
    if parameter.ndim <= 1 or isinstance(module, NORMS):
        return "vectors"
    # The weights of torch's layers are matrices and kernels; others say what they are by name.
    embeds = isinstance(module, nn.Embedding) or EMBEDDING.search(name.rpartition(".")[2])
    return "places" if embeds else "matrices"


def _rate(name: str, recipe: FitRecipe) -> float:
    """Return the multiple of lr that the longest fitting name in the recipe's `rates` gives."""
    fitting = [prefix for prefix in recipe.rates if name.startswith(prefix)]
    return recipe.rates[max(fitting, key=len)] if fitting else 1.0


def rate(progress: float, recipe: FitRecipe) -> float:
    """Return the share of the learning rate at a share of the steps."""
    if progress < recipe.warmup:
        risen = (progress + 1e-3) / (recipe.warmup + 1e-3)
        return recipe.warmup_from + (1 - recipe.warmup_from) * risen
    match recipe.schedule:
        case "constant":
            return 1.0
        case "steps":
            passed = [share for since, share in recipe.milestones if progress >= since]
            return passed[-1] if passed else 1.0
        case "cosine":
            done = (progress - recipe.warmup) / (1 - recipe.warmup)
            return 0.5 * (1 + math.cos(math.pi * done))
