"""What is trained of a recogniser, by which optimiser, and at what rate."""

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from model.recognizer import Recognizer
from training.meta.recipe import FitRecipe

NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)
EMBEDDING = re.compile("embed|token|position")


def trained_parameters(recognizer: Recognizer) -> dict[str, torch.nn.Parameter]:
    """Return what is trained, by name: adapters, temporal embedding, matcher."""
    return {name: p for name, p in recognizer.named_parameters() if p.requires_grad}


def build_optimizer(roots: Mapping[str, nn.Module], recipe: FitRecipe) -> torch.optim.Optimizer:
    """Return the recipe's optimiser of all trained parameters.

    Matrices and convolution kernels decay. Biases and norms do not, nor do embeddings of places
    and tokens, which have a rate of their own.

    Args:
        roots: What learns, by the prefix that its names get in the recipe's `rates`.
        recipe: Which optimiser, and its rates.
    """
    shares = {"matrices": 1.0, "vectors": 1.0, "places": recipe.place_rate}
    parts: dict[tuple[str, float], list[nn.Parameter]] = {(kind, 1.0): [] for kind in shares}
    named = (each for prefix, root in roots.items() for each in root.named_modules(prefix=prefix))
    for path, module in named:
        for name, parameter in module.named_parameters(path, recurse=False):
            if parameter.requires_grad:
                key = _kind(module, name, parameter), _rate(name, recipe)
                parts.setdefault(key, []).append(parameter)
    groups: list[dict[str, Any]] = [
        {
            "params": parameters,
            "weight_decay": recipe.weight_decay if kind == "matrices" else 0.0,
            "share": shares[kind] * own_rate,
        }
        for (kind, own_rate), parameters in parts.items()
    ]
    match recipe.optimizer:
        case "sgd":
            return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum)
        case "adam":
            return torch.optim.Adam(groups, lr=recipe.lr, betas=recipe.betas)
        case "adamw":
            return torch.optim.AdamW(groups, lr=recipe.lr, betas=recipe.betas)


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
