"""What saliency costs, and whether the cells that it shows matter.

    python -m tests.bench.bench_saliency                            # compact, synthetic clips
    python -m tests.bench.bench_saliency --clips DIR --checkpoint FOLDER

- `cost`: milliseconds of saliency over those of a plain answer, of one clip, round by round, by the
  runtime that is served on a processor without AMX.
- `covering`: how much the logit of the answer falls when a quarter of each frame's cells is covered
  with the frame's mean colour: those that saliency shows as most, as least, and any (drawn).

DIR holds <label>/<clip>; each label gives five examples and the rest as queries. The last line is
JSON.
"""

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from model.checkpoint import load_recognizer
from model.episode import EncodedSupport, MatchScores
from model.media.container import MediaLimits
from model.media.video import read_clip
from service.engine.passes.activations import fuse_activations
from service.engine.runtimes.protocol import Runtime
from service.engine.runtimes.pytorch import plain_torch
from tests.bench.bars import interleaved, machine, median_ratio
from tests.bench.clips import SHOTS, WAYS, synthetic_clips
from tests.bench.subjects import forward

SHARE = 0.25  # of the cells that are covered
Labelled = tuple[np.ndarray, list[int]]  # frames_QTHWC, and whose they are


def read(folder: Path, runtime: Runtime, queries: int) -> tuple[Labelled, Labelled]:
    """Read examples and queries of the labels of a folder."""
    found: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    labels: tuple[list[int], list[int]] = ([], [])
    for label, place in enumerate(sorted(each for each in folder.iterdir() if each.is_dir())):
        for number, file in enumerate(sorted(place.iterdir())[: SHOTS + queries]):
            clip = read_clip(
                file,
                frames=runtime.config.frames,
                size=runtime.size,
                squash=runtime.config.squash_side(runtime.size),
                limits=MediaLimits(),
            )
            found[number >= SHOTS].append(clip.frames_THWC)
            labels[number >= SHOTS].append(label)
    return (np.stack(found[0]), labels[0]), (np.stack(found[1]), labels[1])


def drawn(runtime: Runtime, queries: int) -> tuple[Labelled, Labelled]:
    """Render examples and queries of five synthetic labels."""
    shape = runtime.config.frames, runtime.size
    return tuple(  # type: ignore[return-value]
        (
            synthetic_clips(WAYS * count, *shape, seed),
            [place % WAYS for place in range(WAYS * count)],
        )
        for seed, count in enumerate((SHOTS, queries))
    )


def covered(frames_THWC: np.ndarray, worth_TSS: np.ndarray) -> np.ndarray:
    """Cover the cells of most worth in each frame with the frame's mean colour."""
    shown, side = frames_THWC.copy(), worth_TSS.shape[1]
    cell = frames_THWC.shape[1] // side
    for frame, worth_SS in zip(shown, worth_TSS, strict=True):
        mean = frame.mean(axis=(0, 1)).round().astype(np.uint8)
        for place in np.argsort(-worth_SS, axis=None)[: round(SHARE * side * side)]:
            row, column = (int(at) * cell for at in divmod(int(place), side))
            frame[row : row + cell, column : column + cell] = mean
    return shown


def answer(runtime: Runtime, frames_THWC: np.ndarray, support: EncodedSupport) -> MatchScores:
    """Score one clip by itself."""
    return forward(runtime, frames_THWC[None], [support])[0]


def falls(runtime: Runtime, queries: np.ndarray, support: EncodedSupport) -> dict[str, list[float]]:
    """Give for each way of covering how much the answer's logit and its lead fall, by clip."""
    rng = np.random.default_rng(0)
    found: dict[str, list[float]] = {}
    for frames_THWC in queries:
        logits = np.array(answer(runtime, frames_THWC, support).logits_N)
        won = int(logits.argmax())
        worth_TSS = runtime.saliency(frames_THWC, support, won)
        ways = {"most": worth_TSS, "least": -worth_TSS, "any": rng.random(worth_TSS.shape)}
        for way, by_TSS in ways.items():
            after = np.array(answer(runtime, covered(frames_THWC, by_TSS), support).logits_N)
            others = np.delete(np.arange(len(logits)), won)
            found.setdefault(f"logit {way}", []).append(float(logits[won] - after[won]))
            lead = (logits[won] - logits[others].max()) - (after[won] - after[others].max())
            found.setdefault(f"lead {way}", []).append(float(lead))
    return found


def seconds(call: object) -> float:
    """Time one call."""
    begun = time.perf_counter()
    call()  # type: ignore[operator]
    return time.perf_counter() - begun


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, end with JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--checkpoint", default="compact", help="what is served")
    parser.add_argument("--clips", type=Path, help="a folder of <label>/<clip>")
    parser.add_argument("--queries", type=int, default=6, help="of each label")
    parser.add_argument("--rounds", type=int, default=15, help="of timing")
    options = parser.parse_args(arguments)
    recognizer = load_recognizer(options.checkpoint)
    fuse_activations(recognizer.video)
    runtime = plain_torch(recognizer)
    (examples, labels), (queries, _) = (
        read(options.clips, runtime, options.queries)
        if options.clips
        else drawn(runtime, options.queries)
    )
    with torch.inference_mode():
        support = runtime.encode_support(runtime.trunk(examples), labels, None)
        calls = {
            "plain": lambda: seconds(lambda: answer(runtime, queries[0], support)),
            "saliency": lambda: seconds(lambda: runtime.saliency(queries[0], support, 0)),
        }
        times = interleaved(options.rounds, calls)
        found = falls(runtime, queries, support)
    ratio = median_ratio(times["saliency"], times["plain"])
    rows = {name: round(statistics.mean(each), 4) for name, each in found.items()}
    for name, times_s in times.items():
        print(f"{name:<12} {1e3 * statistics.median(times_s):8.1f} ms")
    print(f"saliency / plain: {ratio:.2f}")
    for name, fall in rows.items():
        print(f"falls, {name:<12} {fall:8.4f}")
    print(json.dumps({"ratio": ratio, "falls": rows, "clips": len(queries), "machine": machine()}))


if __name__ == "__main__":
    main()
