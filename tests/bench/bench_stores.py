"""What is kept of clips: bytes, seconds to keep and to read them again, and what accuracy it costs.

    python -m tests.bench.bench_stores INDEX_CSV
    python -m tests.bench.bench_stores INDEX_CSV --accuracy compact --split test
    python -m tests.bench.bench_stores INDEX_CSV --accuracy timm:NAME --weights FILE

Beside the codec stands the one before it, PNG. Seconds are those of a task of 25 clips in a real
store of either kind, without the model's work, which is the same: `register` encodes, decodes
again and stores; `rebuild` reads and decodes. Rounds are interleaved.

Accuracy is that of `training.evaluate` on the same episodes, once as its clips are and once with
supports that went through the codec; queries never do. The last line is JSON.
"""

import argparse
import asyncio
import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from model.checkpoint import load_recognizer
from model.media import keeping
from model.recognizer import Recognizer
from service.stores.opening import open_store
from service.stores.protocol import TaskStore
from tests.bench.bars import Bar, interleaved, machine, median_ratio, tell
from tests.redis_server import redis_server
from tests.stored_tasks import a_task
from training.data.datasets import DataChoice, LabelledClip
from training.evaluation.examination import Layout, draw_layouts
from training.evaluation.scoring import EpisodeScorer
from training.evaluation.tallies import measure
from training.features.clip_views import read_frames

FRAMES, SIZE, CLIPS = 8, 224, 25
BOUND_KB = 200.0
POINTS = 0.2  # of accuracy that the codec may cost
EPISODES = 3000


@dataclass(frozen=True, slots=True)
class Codec:
    """A way to keep frames."""

    encode: Callable[[NDArray[np.uint8]], tuple[bytes, ...]]
    decode: Callable[[Sequence[bytes]], NDArray[np.uint8]]


def as_png(frames_THWC: NDArray[np.uint8]) -> tuple[bytes, ...]:
    """Encode as stores did until 2026-11-28."""
    pictures = []
    for pixels_HWC in frames_THWC:
        buffer = io.BytesIO()
        Image.fromarray(pixels_HWC).save(buffer, format="PNG", compress_level=1)
        pictures.append(buffer.getvalue())
    return tuple(pictures)


CODECS = {
    "png": Codec(as_png, keeping.decode_pictures),
    "kept": Codec(keeping.encode_pictures, keeping.decode_pictures),
}


def kilobytes(clips: Sequence[NDArray[np.uint8]], codec: Codec) -> dict[str, float]:
    """Give the median and the most of what is kept of a clip, KB."""
    sizes = [sum(map(len, codec.encode(frames_THWC))) / 1e3 for frames_THWC in clips]
    return {"median": statistics.median(sizes), "most": max(sizes)}


class Timer:
    """Registers and rebuilds one task in an open store.

    Args:
        store: Where.
        loop: Runs it.
        clips: Of the task.
    """

    def __init__(
        self, store: TaskStore, loop: asyncio.Runner, clips: Sequence[NDArray[np.uint8]]
    ) -> None:
        self.store, self.loop, self.clips = store, loop, clips
        self.seen: dict[str, list[float]] = {"register": [], "rebuild": []}

    def round(self, codec: Codec) -> float:
        """Measure both, and return the seconds of both together."""
        record = a_task(clips=len(self.clips))
        begun = time.perf_counter()
        kept = {
            clip.clip_id: codec.encode(frames_THWC)
            for clip, frames_THWC in zip(record.clips, self.clips, strict=True)
        }
        if codec is not CODECS["png"]:
            for pictures in kept.values():
                codec.decode(pictures)
        self.loop.run(self.store.create(record, kept))
        registered = time.perf_counter()
        for pictures in self.loop.run(self.store.pictures(record.task_id)).values():
            codec.decode(pictures)
        rebuilt = time.perf_counter()
        self.loop.run(self.store.delete(record.task_id))
        self.seen["register"].append(registered - begun)
        self.seen["rebuild"].append(rebuilt - registered)
        return rebuilt - begun


@contextmanager
def opened(kind: str, folder: Path) -> Iterator[tuple[TaskStore, asyncio.Runner]]:
    """Open a real store of a kind."""
    with asyncio.Runner() as loop:
        if kind == "sqlite":
            store = loop.run(open_store(f"sqlite:{folder / 'kshot.db'}"))
            yield store, loop
            loop.run(store.close())
            return
        with redis_server(folder / "redis", appendfsync="always") as server:
            store = loop.run(open_store(server.url))
            yield store, loop
            loop.run(store.close())


def seconds(clips: Sequence[NDArray[np.uint8]], rounds: int) -> tuple[list[Bar], dict[str, Any]]:
    """Time both codecs in both stores."""
    bars: list[Bar] = []
    told: dict[str, Any] = {}
    for kind in ("sqlite", "redis"):
        with tempfile.TemporaryDirectory() as folder, opened(kind, Path(folder)) as (store, loop):
            timers = {name: Timer(store, loop, clips) for name in CODECS}
            interleaved(
                rounds, {name: partial(timers[name].round, codec) for name, codec in CODECS.items()}
            )
        for work in ("register", "rebuild"):
            spent = {name: timer.seen[work] for name, timer in timers.items()}
            told[f"{kind} {work}"] = {
                name: statistics.median(found) for name, found in spent.items()
            }
            ratio = median_ratio(spent["kept"], spent["png"])
            bars.append(Bar(f"{kind}: {work}, kept / PNG", ratio, "<=", 1.0))
    return bars, told


class TwiceTokens:
    """Tokens of clips as they are, [0, C), and of the same clips as kept, [C, 2C).

    Args:
        recognizer: Whose trunk.
        clips: The C clips.
    """

    def __init__(self, recognizer: Recognizer, clips: Sequence[LabelledClip]) -> None:
        self.recognizer, self.clips = recognizer, clips

    def tokens(self, clips: Sequence[int], draws: Sequence[int] | None = None) -> Tensor:
        """Return tokens [B, T, L, D]."""
        assert draws is None
        made = []
        for number in clips:
            through, clip = divmod(number, len(self.clips))
            frames = read_frames(self.clips[clip], frames=FRAMES, size=SIZE)
            if through:
                frames = keeping.decode_pictures(keeping.encode_pictures(frames))
            made.append(self.recognizer.trunk(torch.from_numpy(frames)[None]))
        return torch.cat(made)


def accuracy(options: argparse.Namespace) -> tuple[list[Bar], dict[str, Any]]:
    """Evaluate with supports as they are, and as kept."""
    data = DataChoice(data=(options.index,)).open()
    clips, labels = data.split(options.split), data.labels(options.split)
    recognizer = load_recognizer(options.accuracy, weights=options.weights)
    scorer = EpisodeScorer(recognizer, TwiceTokens(recognizer, clips), 2 * len(clips))
    ways = min(5, len(labels))
    layouts = draw_layouts(
        clips, [Layout(ways, 1), Layout(ways, 5)], queries=5, episodes=EPISODES, seed=0
    )
    bars: list[Bar] = []
    told: dict[str, Any] = {}
    for layout, episodes in layouts.items():
        kept = [
            replace(episode, support=tuple(clip + len(clips) for clip in episode.support))
            for episode in episodes
        ]
        found = {
            name: measure(scorer, labels, asked, name=name).accuracy
            for name, asked in (("before", episodes), ("kept", kept))
        }
        name = f"{options.accuracy} {layout.ways}-way {layout.shots}-shot"
        told[name] = {when: (each.mean, each.interval) for when, each in found.items()}
        lost = found["before"].mean - found["kept"].mean
        bars.append(Bar(f"{name}: accuracy lost", lost, "<=", POINTS, "points"))
    return bars, told


def main() -> None:
    """Measure and tell."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.bench_stores",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("index", type=Path, help="index.csv of a data set")
    parser.add_argument("--split", default="test")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--accuracy", help="a checkpoint, as KSHOT_CHECKPOINT; and nothing else")
    parser.add_argument("--weights", type=Path)
    options = parser.parse_args()
    before = machine()
    if options.accuracy:
        bars, told = accuracy(options)
    else:
        data = DataChoice(data=(options.index,)).open()
        clips = [read_frames(clip, frames=FRAMES, size=SIZE) for clip in data.split(options.split)]
        noise = np.random.default_rng(0).integers(0, 256, (FRAMES, SIZE, SIZE, 3), np.uint8)
        sizes = {name: kilobytes(clips, codec) for name, codec in CODECS.items()}
        noisy = {name: kilobytes([noise], codec) for name, codec in CODECS.items()}
        bars, told = seconds(clips[:CLIPS], options.rounds)
        most = max(sizes["kept"]["most"], noisy["kept"]["most"])
        bars.insert(0, Bar("most that is kept of a clip, noise too", most, "<=", BOUND_KB, "KB"))
        told |= {"KB a clip": sizes, "KB a clip of noise": noisy}
    print(json.dumps(told, indent=1))
    tell("stores", bars, before, measured=told)


if __name__ == "__main__":
    main()
