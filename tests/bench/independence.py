"""Invariant 1, measured: clips alone and among others, whichever others.

Dimensions: S Q clips, N classes, A stages, E feature width.
"""

import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.episode import EncodedSupport, MatchScores
from service.engine.runtimes.protocol import Runtime
from tests.bench.clips import WAYS
from tests.bench.subjects import forward

SIZES = (2, 3, 5, 8, 16)  # clips of a batch
TASKS = ((2, 5), (3, 2), (5, 1), (5, 5))  # ways and shots
LIMITS = {"fp32": 1e-5, "bf16": 5e-3, "int8": 5e-3}


def mixed_batches(clips: int, batches: int, seed: int) -> list[list[int]]:
    """Draw batches of clips, of any size and in any order."""
    rng = random.Random(seed)
    return [rng.sample(range(clips), min(clips, rng.choice(SIZES))) for _ in range(batches)]


@torch.inference_mode()
def different_tasks(
    runtime: Runtime, support_STHWC: np.ndarray, text_NAE: Tensor | None
) -> list[EncodedSupport]:
    """Encode tasks of several ways and shots, as far as clips, their labels in turn, suffice."""
    tokens_STLD = runtime.trunk(support_STHWC)
    tasks = []
    for ways, shots in TASKS:
        chosen = [place for place in range(len(support_STHWC)) if place % WAYS < ways]
        if len(chosen := chosen[: ways * shots]) < ways * shots:
            continue
        classes = [place % WAYS for place in chosen]
        text = None if text_NAE is None else text_NAE[:ways]
        tasks.append(runtime.encode_support(tokens_STLD[chosen], classes, text))
    return tasks


def tasks_of(tasks: Sequence[EncodedSupport], clips: int) -> list[EncodedSupport]:
    """Give clips their tasks, in turn."""
    return [tasks[place % len(tasks)] for place in range(clips)]


def scored_alone(
    runtime: Runtime, frames_QTHWC: np.ndarray, tasks: Sequence[EncodedSupport]
) -> list[MatchScores]:
    """Score each clip in a pass of its own."""
    own = tasks_of(tasks, len(frames_QTHWC))
    return [
        forward(runtime, frames_QTHWC[place : place + 1], [task])[0]
        for place, task in enumerate(own)
    ]


def scored_in_batches(
    runtime: Runtime,
    frames_QTHWC: np.ndarray,
    tasks: Sequence[EncodedSupport],
    batches: Sequence[Sequence[int]],
) -> Iterator[tuple[int, MatchScores]]:
    """Score batches of clips; yields the places of clips and their scores."""
    own = tasks_of(tasks, len(frames_QTHWC))
    for batch in batches:
        found = forward(runtime, frames_QTHWC[list(batch)], [own[place] for place in batch])
        yield from zip(batch, found, strict=True)


def compare(pairs: Iterable[tuple[MatchScores, MatchScores]]) -> dict[str, Any]:
    """Tell the largest differences of two answers to the same clip."""
    shown, cosines, changed, compared = 0.0, 0.0, 0, 0
    for one, other in pairs:
        cosines = max(cosines, gap(one.video_N, other.video_N), gap(one.text_N, other.text_N))
        shown = max(shown, gap(softmax(one.logits_N), softmax(other.logits_N)))
        changed += best(one) != best(other)
        compared += 1
    return {
        "compared": compared,
        "largest_of_cosines": cosines,
        "largest_of_shown_scores": shown,
        "argmax_changes": changed,
    }


def gap(one: Sequence[float] | None, other: Sequence[float] | None) -> float:
    """Give the largest difference; 0 where there is nothing."""
    if one is None or other is None:
        return 0.0
    return float(np.abs(np.subtract(one, other)).max())


def softmax(logits_N: Sequence[float]) -> list[float]:
    """Turn logits into the scores of an answer."""
    return torch.tensor(logits_N, dtype=torch.float64).softmax(dim=0).tolist()


def best(scores: MatchScores) -> int:
    """Give the place of the largest logit."""
    return int(np.argmax(scores.logits_N))
