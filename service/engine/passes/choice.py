"""Which runtime serves: what is asked for, what is there, what agrees, and the fastest of those.

Dimensions: S Q clips, N classes, T frames, H W pixels, C colours.
"""

import logging
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from model.episode import MatchScores, plain
from model.errors import ExportError
from model.export.manifest import exported_beside, read_manifest
from model.export.sessions import onnxruntime, provider_of
from model.methods import check_served
from model.recognizer import Recognizer
from service.engine.passes.activations import fuse_activations
from service.engine.runtimes.onnx import onnx_runtime
from service.engine.runtimes.protocol import Runtime
from service.engine.runtimes.pytorch import TorchRuntime, plain_torch, reduced_torch
from service.errors import SettingsError

Wanted = Literal["auto", "torch", "onnx"]
ACTIVATIONS = 8  # a pass holds about so many times the tokens that leave the trunk

TOLERANCE = 5e-3  # of cosines (design, invariant 1); of distances, relative to the largest
WAYS, QUERIES = 2, 4
MEASURE_S = 1.0  # for all candidates together, if two passes of each take no longer
MOST_ROUNDS = 25  # then a median is known; passes of a small model would be a thousand
MOST_CLIPS = 8  # of a measured pass

log = logging.getLogger("kshot.engine")


@dataclass(frozen=True, slots=True)
class Choice:
    """The runtime that serves, and why."""

    runtime: Runtime
    why: str
    clips_s: Mapping[str, float] = field(default_factory=dict)  # measured, by candidate
    refused: Mapping[str, str] = field(default_factory=dict)  # candidate to reason


def label(runtime: Runtime) -> str:
    """Name a candidate: `torch-fp32`, `onnx-fp32`."""
    return f"{runtime.kind}-{runtime.precision}"


def open_runtime(
    recognizer: Recognizer,
    *,
    wanted: Wanted = "auto",
    folder: Path | None = None,
    threads: int = 1,
    batch_frames: int = 16,
) -> Choice:
    """Open what serves a recognizer; the activations of its image tower are fused by that.

    Args:
        recognizer: Loaded, on its device.
        wanted: `torch` or `onnx` leaves the other out.
        folder: What `python -m model.export` wrote; None leaves ONNX out.
        threads: Of one pass in ONNX Runtime.
        batch_frames: Frames of the largest pass.

    Raises:
        SettingsError: What is asked for is not there, belongs to other weights, scores
            differently, or does not fit the memory.
        MethodError: Its answers would depend on other queries.
    """
    check_served(recognizer.config)
    fuse_activations(recognizer.video)
    reference = TorchRuntime(recognizer) if wanted == "onnx" else plain_torch(recognizer)
    assert_fits(reference, batch_frames)
    candidates: list[Runtime] = []
    refused: dict[str, str] = {}
    if wanted != "onnx":
        candidates += [reference, *reduced_torch(recognizer, batch_frames)]
    if wanted != "torch":
        candidates += _exported(recognizer, wanted, folder, threads, refused)
    batch_clips = batch_frames // recognizer.config.frames
    choice = choose(reference, candidates, refused, batch_clips)
    log.info("Runtime %s: %s", label(choice.runtime), choice.why)
    return choice


def choose(
    reference: Runtime,
    candidates: Sequence[Runtime],
    refused: Mapping[str, str] | None = None,
    batch_clips: int = MOST_CLIPS,
) -> Choice:
    """Keep the candidate fastest at full batches, of those whose scores agree with the reference's.

    Raises:
        SettingsError: None agrees.
    """
    refused = dict(refused or {})
    agreeing: list[Runtime] = []
    clips = synthetic_clips(reference)
    scores = scores_of(reference, clips) if list(candidates) != [reference] else []
    for candidate in candidates:
        reason = None
        if candidate is not reference:
            reason = disagreement(scores, scores_of(candidate, clips))
        if reason is None:
            agreeing.append(candidate)
        else:
            refused[label(candidate)] = reason
            log.warning("Runtime %s is left out: %s", label(candidate), reason)
    if not agreeing:
        listed = "; ".join(f"{name}: {reason}" for name, reason in refused.items())
        raise SettingsError(f"No runtime that KSHOT_RUNTIME allows can serve: {listed}.")
    speeds = clips_per_second(agreeing, clips, batch_clips)
    if not speeds:
        return Choice(agreeing[0], "the only one there is", refused=refused)
    by_name = {label(one): round(speed, 3) for one, speed in zip(agreeing, speeds, strict=True)}
    best = max(range(len(speeds)), key=speeds.__getitem__)
    shown = ", ".join(f"{name} {speed:.3g}" for name, speed in by_name.items())
    return Choice(agreeing[best], f"the fastest at start-up, in clips/s: {shown}", by_name, refused)


def onnx_folder(named: Path | None, checkpoint: str) -> Path | None:
    """Return the folder that was named, else the checkpoint's own where it is there."""
    own = exported_beside(checkpoint)
    return named or (own if own is not None and own.is_dir() else None)


def _exported(
    recognizer: Recognizer,
    wanted: Wanted,
    folder: Path | None,
    threads: int,
    refused: dict[str, str],
) -> Sequence[Runtime]:
    """Open the folder; `auto` may do without the package, never with a wrong folder."""
    if folder is None:
        if wanted == "onnx":
            raise SettingsError(
                "KSHOT_RUNTIME is 'onnx', but the checkpoint has no `onnx` folder and KSHOT_ONNX "
                "names none; run `python -m model.export`, or set KSHOT_RUNTIME=auto."
            )
        return []
    try:
        onnxruntime()
        provider_of(recognizer.device)
    except ExportError as error:
        if wanted == "onnx":
            raise SettingsError(f"KSHOT_RUNTIME is 'onnx': {error}") from error
        refused["onnx"] = str(error)
        log.warning("ONNX Runtime is left out: %s", error)
        return []
    try:
        manifest = read_manifest(folder)
        return [onnx_runtime(recognizer, folder, manifest, threads=threads)]
    except ExportError as error:
        raise SettingsError(f"The ONNX folder {folder}: {error}") from error


@torch.inference_mode()
def assert_fits(runtime: Runtime, batch_frames: int) -> None:
    """Refuse a largest pass that memory cannot hold, by what one clip takes.

    Raises:
        SettingsError: It is too large.
    """
    clip = synthetic_clips(runtime)[:1]
    clip_bytes = clip.nbytes + ACTIVATIONS * runtime.trunk(clip).nbytes
    wanted = batch_frames * clip_bytes // runtime.config.frames
    if runtime.device.type == "cuda":
        there = torch.cuda.get_device_properties(runtime.device).total_memory
    else:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if wanted > there:
        raise SettingsError(
            f"KSHOT_BATCH_FRAMES is {batch_frames}: a pass would take about "
            f"{wanted / 2**30:.0f} GiB, and {runtime.device} has {there / 2**30:.0f} GiB; lower it."
        )


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
    while len(rounds) < 2 or (len(rounds) < MOST_ROUNDS and time.perf_counter() < until):
        rounds.append([_seconds(runtime, bucket) for runtime in runtimes])
    return [len(bucket) / statistics.median(column) for column in zip(*rounds, strict=True)]


@torch.inference_mode()
def _seconds(runtime: Runtime, clips_BTHWC: np.ndarray) -> float:
    started = time.perf_counter()
    runtime.trunk(clips_BTHWC)
    if runtime.device.type == "cuda":
        torch.cuda.synchronize(runtime.device)
    return time.perf_counter() - started
