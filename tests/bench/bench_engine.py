"""The engine in this process, without HTTP. The last line of stdout is JSON.

    python -m tests.bench.bench_engine
    python -m tests.bench.bench_engine --method vit-b

- `released`: one query through the engine, its task encoded long ago, against the released way, in
  which every query brings all 25 supports through the network with it (text in neither).
- `bare`: clips a second through the engine, many in flight, against bare forward passes of the
  batch size that is fastest here.
- `tasks`: clips of many tasks in flight, and clips of 1,000 registered tasks, against as many clips
  of one task. Tasks are copies, each with memory of its own, looked up in a support cache.
- `alone`: scores of clips by themselves and in random mixed batches, for each runtime there is.

What is compared is measured side by side, round by round; ratios are medians over rounds.
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model.episode import EncodedSupport, MatchScores
from model.export.manifest import read_manifest
from model.recognizer import Recognizer
from service.engine.engine import Engine
from service.engine.passes.activations import fuse_activations
from service.engine.passes.batching import lanes_of, usual_batch_frames
from service.engine.passes.choice import TOLERANCE, label, onnx_folder
from service.engine.runtimes.bfloat16 import with_bfloat16_video
from service.engine.runtimes.onnx import onnx_runtime
from service.engine.runtimes.protocol import Runtime
from service.engine.runtimes.pytorch import (
    TorchRuntime,
    plain_torch,
    reduced_torch,
)
from service.engine.support_cache import SupportCache, SupportKey
from tests.bench.bars import Bar, interleaved, machine, median_ratio, tell
from tests.bench.clips import SHOTS, WAYS, synthetic_clips
from tests.bench.closed_loop import drive
from tests.bench.independence import (
    LIMITS,
    compare,
    different_tasks,
    mixed_batches,
    scored_alone,
    scored_in_batches,
)
from tests.bench.schedule import percentile
from tests.bench.subjects import VIT_B, copies, forward, recognizer_of, text_of
from tests.episodes import score_episode

PARTS = ("released", "bare", "tasks", "alone")
CLASSES = [place % WAYS for place in range(WAYS * SHOTS)]


class Bench:
    """One engine that runs, and what is put to it.

    Args:
        options: The command line's.
        recognizer: The network in fp32.
        runtime: What serves it.
        engine: Started.
    """

    def __init__(
        self,
        options: argparse.Namespace,
        recognizer: Recognizer,
        runtime: TorchRuntime,
        engine: Engine,
    ) -> None:
        self.options = options
        self.recognizer = recognizer
        self.runtime = runtime
        self.engine = engine
        self.loop = asyncio.get_running_loop()
        self.text_NAE = text_of(recognizer)
        shape = (engine.model.frames, engine.model.size)
        self.support_STHWC = synthetic_clips(WAYS * SHOTS, *shape, seed=1)
        self.clips_QTHWC = synthetic_clips(options.clips, *shape, seed=2)

    async def released(self) -> tuple[list[Bar], dict[str, Any]]:
        """One query, with its supports kept and with its supports encoded again."""
        support = await self.engine.encode_support(self.support_STHWC, CLASSES, self.text_NAE)
        query_QTHWC = self.clips_QTHWC[:1]
        both = np.concatenate([self.support_STHWC, query_QTHWC])

        def kept() -> float:
            return statistics.median(
                self._wait(self.engine.classify(query_QTHWC, support)) for _ in range(3)
            )

        @torch.inference_mode()
        def again() -> float:
            begun = time.perf_counter()
            network = self.runtime.recognizer
            tokens = network.trunk(both)
            scores = score_episode(network, tokens[:-1], CLASSES, tokens[-1:], self.text_NAE)
            scores.logits_QN.cpu()  # waits for the device
            return time.perf_counter() - begun

        found = await self._rounds(kept=kept, again=again)
        ratio = median_ratio(found["again"], found["kept"])
        bar = Bar(f"one query of {WAYS} x {SHOTS}: encoding all again / engine", ratio, ">=", 20)
        return [bar], {"supports_bytes": support.bytes, **medians(found)}

    async def bare(self) -> tuple[list[Bar], dict[str, Any]]:
        """The engine against the network alone."""
        support = await self._small_support()
        clips, frames = len(self.clips_QTHWC), torch.from_numpy(self.clips_QTHWC)

        def passes(size: int) -> float:
            begun = time.perf_counter()
            for part in frames.split(size):
                forward(self.runtime, part, [support] * len(part))
            return (time.perf_counter() - begun) / clips

        sizes = [size for size in self.options.sizes if size <= clips]
        sweep = await self._rounds(
            1 + self.options.warm, **{str(s): lambda s=s: passes(s) for s in sizes}
        )
        best = min(sizes, key=lambda size: min(sweep[str(size)]))
        found = await self._rounds(
            bare=lambda: passes(best), engine=lambda: self._driven([support]) / clips
        )
        ratio = median_ratio(found["bare"], found["engine"])
        bar = Bar("engine / bare forward pass at its best batch size", ratio, ">=", 0.95)
        by_size = {size: round(1 / statistics.median(times), 2) for size, times in sweep.items()}
        times = await drive(self.engine, self.clips_QTHWC, [support], self.options.in_flight)
        latency = {f"engine_p{p}_ms": round(1e3 * percentile(times, p), 2) for p in (50, 99)}
        return [bar], {"best_batch": best, "clips_s_by_batch": by_size, **latency, **medians(found)}

    async def tasks(self) -> tuple[list[Bar], dict[str, Any]]:
        """Clips of one task, of many in flight, of many registered."""
        options = self.options
        support = await self._small_support()
        kinds = {"one": 1, "mixed": options.tasks, "registered": options.registered}
        before = resident_bytes()
        caches = {name: filled(copies(support, count)) for name, count in kinds.items() if count}
        idle = (resident_bytes() - before) / sum(map(len, caches.values()))
        looked_up = {
            name: [cache.peek(key(place)) for place in range(len(cache))]
            for name, cache in caches.items()
        }
        found = await self._rounds(
            **{name: lambda s=supports: self._driven(s) for name, supports in looked_up.items()}
        )
        bars = [
            Bar(
                f"clips of {count:,} tasks {what} / of one task",
                median_ratio(found["one"], found[name]) if count else None,
                ">=",
                0.95,
            )
            for name, count, what in (
                ("mixed", options.tasks, "in flight"),
                ("registered", options.registered, "registered"),
            )
        ]
        memory = {"idle_task_bytes": support.bytes, "idle_task_resident_bytes": round(idle)}
        return bars, {**memory, **medians(found)}

    async def alone(self) -> tuple[list[Bar], dict[str, Any]]:
        """Batch independence, and agreement with plain torch."""
        options, facts = self.options, self.engine.model
        clips = synthetic_clips(options.alone, facts.frames, facts.size, seed=3)
        batches = mixed_batches(options.alone, options.batches, seed=4)
        bars: list[Bar] = []
        details: dict[str, Any] = {}
        plain: list[MatchScores] = []  # of the first runtime
        for name, runtime in runtimes_of(options, self.recognizer).items():
            supports = self.support_STHWC[: options.supports]
            tasks = different_tasks(runtime, supports, self.text_NAE)
            alone = scored_alone(runtime, clips, tasks)
            plain = plain or alone
            mixed = compare(
                (alone[place], scores)
                for place, scores in scored_in_batches(runtime, clips, tasks, batches)
            )
            to_plain = compare(zip(plain, alone, strict=True))
            details[name] = {"in_batches": mixed, "to_plain_torch": to_plain}
            here = f"{name}: {options.alone} clips alone and in {options.batches} batches"
            there = f"{name}: {options.alone} clips here and in plain torch"
            largest = max(mixed["largest_of_cosines"], mixed["largest_of_shown_scores"])
            bars += [
                Bar(f"{here}: largest", largest, "<=", LIMITS[runtime.precision]),
                Bar(f"{here}: arg-max changes", mixed["argmax_changes"], "<=", 0),
                Bar(f"{there}: cosines", to_plain["largest_of_cosines"], "<=", TOLERANCE),
                Bar(f"{there}: arg-max changes", to_plain["argmax_changes"], "<=", 0),
            ]
        return bars, details

    async def _small_support(self) -> EncodedSupport:
        """Encode a task of which many copies fit."""
        with torch.inference_mode():
            tokens_STLD = self.runtime.trunk(self.support_STHWC[:WAYS])
            return self.runtime.encode_support(tokens_STLD, CLASSES[:WAYS], self.text_NAE)

    async def _rounds(self, rounds: int = 0, **calls: Any) -> dict[str, list[float]]:  # noqa: ANN401
        """Measure in a thread, so that this loop stays free for the engine's answers."""
        for call in calls.values() if self.options.warm else ():
            await asyncio.to_thread(call)
        return await asyncio.to_thread(interleaved, rounds or self.options.rounds, calls)

    def _wait(self, work: Any) -> float:  # noqa: ANN401
        """Time a coroutine in the engine's loop, where the service waits, from another thread."""
        return asyncio.run_coroutine_threadsafe(timed(work), self.loop).result()

    def _driven(self, supports: Sequence[EncodedSupport]) -> float:
        """Time all clips, the tasks in turn."""
        return self._wait(drive(self.engine, self.clips_QTHWC, supports, self.options.in_flight))


async def timed(work: Awaitable[object]) -> float:
    """Return the seconds that something takes."""
    begun = time.perf_counter()
    await work
    return time.perf_counter() - begun


def runtimes_of(options: argparse.Namespace, recognizer: Recognizer) -> dict[str, Runtime]:
    """List the runtimes there are: plain torch, bfloat16 by hardware or if asked for, ONNX."""
    runtimes: list[Runtime] = [plain_torch(recognizer)]
    halves: list[TorchRuntime] = reduced_torch(recognizer, usual_batch_frames(recognizer.device))
    if not halves and options.bf16:
        halves = [TorchRuntime(with_bfloat16_video(recognizer), precision="bf16")]
    runtimes += halves
    folder = options.onnx if options.method == VIT_B else onnx_folder(options.onnx, options.method)
    if folder is not None:
        manifest, threads = read_manifest(folder), torch.get_num_threads()
        runtimes.append(onnx_runtime(recognizer, folder, manifest, threads=threads))
    return {label(runtime): runtime for runtime in runtimes}


def key(place: int) -> SupportKey:
    """Name a task of a cache."""
    return SupportKey(f"task-{place}", 1, "bench")


def filled(supports: Sequence[EncodedSupport]) -> SupportCache:
    """Keep tasks as the service does."""
    cache = SupportCache(max_bytes=sum(support.bytes for support in supports))
    for place, support in enumerate(supports):
        cache.put(key(place), support)
    return cache


def resident_bytes() -> int:
    """Read the memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def medians(found: dict[str, list[float]]) -> dict[str, float]:
    """Give the median seconds of each side."""
    return {f"{name}_s": round(statistics.median(times), 4) for name, times in found.items()}


async def measure(options: argparse.Namespace) -> tuple[list[Bar], dict[str, Any]]:
    """Start an engine and measure the parts asked for."""
    recognizer = recognizer_of(options.method).to(options.device)
    fuse_activations(recognizer.video)  # as the service does
    runtime = plain_torch(recognizer)
    batch_frames = usual_batch_frames(runtime.device)
    if runtime.device.type == "cuda":
        runtime = reduced_torch(recognizer, batch_frames)[0]
    engine = Engine(runtime, batch_frames=batch_frames, lanes=lanes_of(runtime))
    await engine.start()
    try:
        bench = Bench(options, recognizer, runtime, engine)
        bars: list[Bar] = []
        details: dict[str, Any] = {"method": engine.model.name}
        for part in options.parts:
            begun = time.monotonic()
            found, told = await getattr(bench, part)()
            bars += found
            details[part] = told | {"took_s": round(time.monotonic() - begun, 1)}
        return bars, details
    finally:
        await engine.close()


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; what is not given depends on how dear a clip is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--method", default="compact", help=f"a checkpoint, or {VIT_B}")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--rounds", type=int, help="of each comparison")
    parser.add_argument("--clips", type=int, help="of one round")
    parser.add_argument("--in-flight", type=int, help="clips at a time")
    parser.add_argument("--tasks", type=int, help="in flight")
    parser.add_argument("--registered", type=int, help="tasks at hand; 0 leaves that out")
    parser.add_argument("--sizes", type=int, nargs="+", help="batch sizes to try, in clips")
    parser.add_argument("--alone", type=int, help="clips scored alone and in batches")
    parser.add_argument("--supports", type=int, help="`alone`: clips that its tasks are made of")
    parser.add_argument("--batches", type=int, help="random mixed batches")
    parser.add_argument("--bf16", action="store_true", help="`alone`: even where it is emulated")
    parser.add_argument("--onnx", type=Path, help="default: what `make onnx` wrote")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args(arguments)
    dear = {"rounds": 2, "clips": 8, "in_flight": 8, "tasks": 8, "registered": 0}
    dear |= {"sizes": [1, 8], "alone": 4, "batches": 2, "supports": 10}
    dear |= {"warm": False}
    cheap = {"rounds": 5, "clips": 64, "in_flight": 64, "tasks": 64, "registered": 1000}
    cheap |= {"sizes": [1, 2, 4, 8, 16], "alone": 200, "batches": 100, "supports": 25}
    cheap |= {"warm": True}
    if torch.device(options.device).type == "cuda":
        cheap |= {"clips": 256, "in_flight": 96, "sizes": [1, 8, 32]}
    slow = options.method == VIT_B and options.device == "cpu"
    for name, value in (dear if slow else cheap).items():
        if getattr(options, name, None) is None:
            setattr(options, name, value)
    return options


def main() -> None:
    """Measure and tell."""
    options = parse(None)
    before = machine()
    bars, details = asyncio.run(measure(options))
    tell("engine", bars, before, **details)


if __name__ == "__main__":
    main()
