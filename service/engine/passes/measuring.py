"""What a choice between runtimes rests on: the same scores, and clips a second, side by side.

Dimensions: S Q clips, N classes, T frames, H W pixels, C colours.
"""

import statistics
import time
from collections.abc import Sequence

import numpy as np
import torch

from model.episode import MatchScores, plain
from service.engine.runtimes.protocol import Runtime

TOLERANCE = 5e-3  # of cosines (design, invariant 1); of distances, relative to the largest
WAYS, QUERIES = 2, 4
MEASURE_S = 1.0  # for all candidates together, if two passes of each take no longer
MOST_CLIPS = 8  # of a measured pass


def synthetic_clips(runtime: Runtime) -> np.ndarray:
    """Make a clip of each class, then queries that are noisy copies of them in turn."""
    rng = np.random.default_rng(0)
    frames, size = runtime.config.frames, runtime.size
    cell = -(-size // 7)
    coarse = rng.integers(0, 200, (WAYS, frames, 7, 7, 3))
    blurred = np.kron(coarse, np.ones((1, 1, cell, cell, 1)))[:, :, :size, :size]
    queries = blurred[np.arange(QUERIES) % WAYS]
    queries = queries + rng.integers(0, 55, queries.shape)
    return np.concatenate([blurred, queries]).astype(np.uint8)


@torch.inference_mode()
def scores_of(runtime: Runtime, clips_BTHWC: np.ndarray) -> list[MatchScores]:
    """Classify the queries behind the supports, without text, as the engine would."""
    tokens = runtime.trunk(clips_BTHWC)
    support = runtime.encode_support(tokens[:WAYS], range(WAYS), None)
    queries = tokens[WAYS:]
    many = [support] * len(queries)
    return plain(runtime.score(runtime.encode_query(queries, many), many))


def disagreement(reference: Sequence[MatchScores], scores: Sequence[MatchScores]) -> str | None:
    """Say how scores differ from the reference by more than half precision may, or None."""
    video = np.array([score.video_N for score in reference])
    other = np.array([score.video_N for score in scores])
    gap = float(np.abs(video - other).max()) / max(1.0, float(np.abs(video).max()))
    if not gap <= TOLERANCE:  # a NaN too
        return f"its scores differ from torch fp32 by {gap:.1e}, more than {TOLERANCE:.0e}"
    best = [np.argmax(score.logits_N) for score in reference]
    if best != [np.argmax(score.logits_N) for score in scores]:
        return "it gives other labels than torch fp32"
    return None


def clips_per_second(
    runtimes: Sequence[Runtime], clips_BTHWC: np.ndarray, batch_clips: int
) -> list[float]:
    """Measure trunks, alternating, warm, by the median; a slow machine gets a smaller pass."""
    if len(runtimes) < 2:
        return []
    alone_s = _seconds(runtimes[0], clips_BTHWC[:1])
    affordable = int(MEASURE_S / (3 * len(runtimes) * max(alone_s, 1e-6)))
    bucket_clips = max(1, min(batch_clips, MOST_CLIPS, affordable))
    bucket = np.resize(clips_BTHWC, (bucket_clips, *clips_BTHWC.shape[1:]))
    for runtime in runtimes:
        _seconds(runtime, bucket)
    rounds: list[list[float]] = []
    until = time.perf_counter() + MEASURE_S
    while len(rounds) < 2 or time.perf_counter() < until:
        rounds.append([_seconds(runtime, bucket) for runtime in runtimes])
    return [len(bucket) / statistics.median(column) for column in zip(*rounds, strict=True)]


@torch.inference_mode()
def _seconds(runtime: Runtime, clips_BTHWC: np.ndarray) -> float:
    begun = time.perf_counter()
    runtime.trunk(clips_BTHWC)
    if runtime.device.type == "cuda":
        torch.cuda.synchronize(runtime.device)
    return time.perf_counter() - begun
