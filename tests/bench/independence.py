"""Invariant 1, measured: clips alone and among others, whichever others.

Dimensions: S Q clips, N classes, A stages, E feature width.
"""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.recognizer import EncodedSupport, MatchScores
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


def compare(
    runtime: Runtime,
    frames_QTHWC: np.ndarray,
    tasks: Sequence[EncodedSupport],
    batches: Sequence[Sequence[int]],
) -> dict[str, Any]:
    """Score each clip alone, then in batches; tell the largest differences."""
    clips = len(frames_QTHWC)
    own = [tasks[place % len(tasks)] for place in range(clips)]
    alone = [forward(runtime, frames_QTHWC[q : q + 1], own[q : q + 1])[0] for q in range(clips)]
    largest, changed, compared = 0.0, 0, 0
    for batch in batches:
        found = forward(runtime, frames_QTHWC[list(batch)], [own[place] for place in batch])
        for place, scores in zip(batch, found, strict=True):
            largest = max(largest, difference(alone[place], scores))
            changed += best(alone[place]) != best(scores)
            compared += 1
    return {
        "clips": clips,
        "batches": len(batches),
        "compared": compared,
        "largest_difference": largest,
        "argmax_changes": changed,
        "limit": LIMITS[runtime.precision],
    }


def difference(one: MatchScores, other: MatchScores) -> float:
    """Give the largest difference of what an answer shows: scores, video and text."""
    pairs = [(softmax(one.logits_N), softmax(other.logits_N)), (one.video_N, other.video_N)]
    if one.text_N is not None and other.text_N is not None:
        pairs.append((one.text_N, other.text_N))
    return max(float(np.abs(np.subtract(a, b)).max()) for a, b in pairs)


def softmax(logits_N: Sequence[float]) -> list[float]:
    """Turn logits into the scores of an answer."""
    return torch.tensor(logits_N, dtype=torch.float64).softmax(dim=0).tolist()


def best(scores: MatchScores) -> int:
    """Give the place of the largest logit."""
    return int(np.argmax(scores.logits_N))
