"""What is trained of a recogniser, by which optimiser, and at what rate."""

import math
from typing import Any

import torch
from torch import nn

from model.recognizer import Recognizer
from training.meta.recipe import FitRecipe


def trained_parameters(recognizer: Recognizer) -> dict[str, torch.nn.Parameter]:
    """Return what is trained, by name: adapters, temporal embedding, matcher."""
    return {name: p for name, p in recognizer.named_parameters() if p.requires_grad}


def build_optimizer(recognizer: Recognizer, recipe: FitRecipe) -> torch.optim.Optimizer:
    """Return the recipe's optimiser of all trained parameters.

    Matrices and convolution kernels decay. Biases do not, nor do embeddings of places, which have
    a rate of their own.
    """
    matrices: list[nn.Parameter] = []
    vectors: list[nn.Parameter] = []
    places: list[nn.Parameter] = []
    for module in recognizer.modules():
        convolves = isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
        for parameter in module.parameters(recurse=False):
            if not parameter.requires_grad:
                continue
            if parameter.ndim == 1:
                vectors.append(parameter)
            else:
                (matrices if convolves or parameter.ndim == 2 else places).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": recipe.weight_decay, "share": 1.0},
        {"params": vectors, "weight_decay": 0.0, "share": 1.0},
        {"params": places, "weight_decay": 0.0, "share": recipe.place_rate},
    ]
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
