"""Timelines of made-up videos: are the spans right, how fast are they, what memory do they take.

    KSHOT_SHARED=... python -m tests.bench.bench_timeline --videos 60

Each video has five J-HMDB clips of val labels, and before, between and after them clips of train
labels, which the task does not have. `--tune` shows four train labels instead, with others of them
between. Supports are 5 clips a label of other source groups. Windows are scored by a real server;
spans are made of these scores, with and without smoothing. The last line of stdout is JSON.
"""

import argparse
import csv
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import av
import httpx
import numpy as np

from model.media.windows import WindowGrid
from model.timeline.segments import Span
from tests.bench.span_figures import RATE, Figures
from tests.serving import support_files
from tests.videos import make_video

SHOTS, PARTS = 5, 5
TASK_LABELS = 4
Shown = list[tuple[float, float, str | None]]
Clips = dict[str, dict[str, dict[str, list[Path]]]]  # by split, label, source group
Run = TypeVar("Run")


def clips_of(root: Path) -> Clips:
    """List clips by split, label and source group."""
    found: Clips = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    with (root / "index.csv").open() as lines:
        for row in csv.DictReader(lines):
            found[row["split"]][row["label"]][row["source_group"]].append(root / row["path"])
    return found


def pictures(path: Path) -> list[np.ndarray]:
    """Decode a clip."""
    with av.open(str(path)) as video:
        return [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]


def made_up(
    clips: Clips, rng: random.Random, *, of: str = "val"
) -> tuple[bytes, Shown, dict[str, list[bytes]]]:
    """Make a video, what it shows when, and the supports of a task of other source groups."""
    labels = sorted(clips[of])
    if len(labels) > TASK_LABELS:
        labels = sorted(rng.sample(labels, TASK_LABELS))
    between = sorted({*clips["train"]} - {*labels})
    shown = rng.sample(labels, len(labels)) + rng.choices(labels, k=PARTS)
    frames: list[np.ndarray] = []
    truth: Shown = []
    used: dict[str, set[str]] = defaultdict(set)

    def add(split: str, label: str) -> None:
        group = rng.choice(sorted(clips[split][label]))
        used[label].add(group)
        more = pictures(rng.choice(clips[split][label][group]))
        named = label if label in labels else None
        truth.append((len(frames) / RATE, (len(frames) + len(more)) / RATE, named))
        frames.extend(more)

    add("train", rng.choice(between))
    for label in shown[:PARTS]:
        add(of, label)
        add("train", rng.choice(between))
    supports = {}
    for label in labels:
        groups = [group for group in sorted(clips[of][label]) if group not in used[label]]
        drawn = [rng.choice(clips[of][label][group]) for group in groups]
        supports[label] = [path.read_bytes() for path in rng.sample(drawn, min(SHOTS, len(drawn)))]
    return make_video(frames, rate=RATE, options={"preset": "veryfast"}), truth, supports


@contextmanager
def served(checkpoint: str) -> Iterator[tuple[int, httpx.Client]]:
    """Serve a model in a process of its own, with a store that ends with it."""
    with tempfile.TemporaryDirectory() as name, server(Path(name), checkpoint) as served:
        yield served


@contextmanager
def server(folder: Path, checkpoint: str) -> Iterator[tuple[int, httpx.Client]]:
    """Serve a model in a process of its own, with its store in a folder."""
    port = 18431
    env = {key: value for key, value in os.environ.items() if not key.startswith("KSHOT_")}
    env |= {"KSHOT_PORT": str(port), "KSHOT_STORE": f"sqlite:{folder}/kshot.db"}
    env |= {"KSHOT_CHECKPOINT": checkpoint}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "service"], env=env, stdout=log, stderr=log
        )
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=900) as client:
                while True:
                    try:
                        if client.get("/readyz").is_success:
                            break
                    except httpx.TransportError:
                        time.sleep(0.2)
                yield process.pid, client
        finally:
            process.terminate()
            process.wait()


def follow(client: httpx.Client, task: str, video: bytes, **fields: str) -> dict[str, Any]:
    """Ask for a timeline, which must succeed."""
    files = {"clip": ("video.mp4", video)}
    answer = client.post(f"/tasks/{task}/timeline", files=files, data=fields)
    answer.raise_for_status()
    return dict(answer.json())


def register(client: httpx.Client, supports: dict[str, list[bytes]]) -> str:
    """Register a task and wait for it."""
    answer = client.post("/tasks", files=support_files(supports))
    answer.raise_for_status()
    task = str(answer.json()["id"])
    while client.get(f"/tasks/{task}").raise_for_status().json()["status"] == "processing":
        time.sleep(0.5)  # a busy machine: 202
    return task


def resident(pid: int) -> int:
    """Sum what a process and its children hold, bytes.

    A child that has not begun its own program yet holds its parent's memory, and counts nothing.
    """
    try:
        own = Path(f"/proc/{pid}")
        command = (own / "cmdline").read_bytes()
        children = (own / f"task/{pid}/children").read_text().split()
        begun = [one for one in children if Path(f"/proc/{one}/cmdline").read_bytes() != command]
        pages = int((own / "statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return 4096 * pages + sum(resident(int(child)) for child in begun)


def measured(pid: int, run: Callable[[], Run]) -> tuple[Run, int]:
    """Run something; give also the most that a process and its children held meanwhile."""
    most, done = 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.05):
            most = max(most, resident(pid))

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        return run(), most
    finally:
        done.set()
        watching.join()


def lengths(pid: int, client: httpx.Client, clips: Clips) -> dict[str, Any]:
    """Measure speed and memory for a video of one and of fifteen minutes."""
    rng = random.Random(3)
    frames: list[np.ndarray] = []
    while len(frames) < 60 * RATE:
        label = rng.choice(sorted(clips["val"]))
        group = rng.choice(sorted(clips["val"][label]))
        frames += pictures(rng.choice(clips["val"][label][group]))
    _, _, supports = made_up(clips, rng)
    task, rows = register(client, supports), {}
    for minutes in (1, 1, 15):  # the first one warms up
        video = make_video(
            frames[: 60 * RATE], rate=RATE, options={"preset": "veryfast"}, repeats=minutes
        )
        found, peak = measured(pid, partial(follow, client, task, video))
        rows[f"{minutes} min"] = {
            "bytes": len(video),
            "duration_s": found["duration_s"],
            "took_s": found["took_s"],
            "times real time": round(found["duration_s"] / found["took_s"], 1),
            "peak MiB": round(peak / 2**20),
        }
        sys.stdout.write(f"{minutes} min: {rows[f'{minutes} min']}\n")
    return rows


def asked_for() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=int, default=60, help="how many")
    parser.add_argument("--keep", type=Path, help="file for the scores of all windows")
    parser.add_argument("--no-lengths", action="store_true", help="no speed and memory")
    parser.add_argument("--tune", action="store_true", help="show train labels instead of val")
    parser.add_argument("--checkpoint", default="compact", help="what is served")
    return parser.parse_args()


def main() -> None:
    """Print figures; the last line is JSON."""
    asked = asked_for()
    clips = clips_of(Path(os.environ["KSHOT_SHARED"]) / "data" / "jhmdb")
    smooth, plain, ratios, kept = Figures(), Figures(), [], []
    with served(asked.checkpoint) as (pid, client):
        rows = {} if asked.no_lengths else lengths(pid, client, clips)
        for seed in range(asked.videos):
            of = "train" if asked.tune else "val"
            video, truth, supports = made_up(clips, random.Random(seed), of=of)
            found = follow(client, register(client, supports), video, scores="true")
            labels = list(supports)
            ratios.append(found["duration_s"] / found["took_s"])
            kept.append({"found": found, "truth": truth, "labels": labels})
            smooth.add([(s["start_s"], s["end_s"], s["label"]) for s in found["spans"]], truth)
            each = [
                (span.start_s, span.end_s, labels[span.label])
                for span in first_labels(found, labels)
            ]
            plain.add(each, truth)
    if asked.keep:
        asked.keep.write_text(json.dumps(kept))
    result = {
        "smoothed": smooth.row(),
        "windows": plain.row(),
        "times real time, median of the made-up": round(statistics.median(ratios), 1),
        "lengths": rows,
    }
    for part, row in result.items():
        sys.stdout.write(f"{part}: {row}\n")
    sys.stdout.write(json.dumps(result) + "\n")


def first_labels(found: dict[str, Any], labels: Sequence[str]) -> list[Span]:
    """Give each window's first label for its stride, unknown ones as background: no smoothing."""
    grid = WindowGrid.of(8, found["window_s"], found["stride_s"])
    spans: list[Span] = []
    for place, each in enumerate(found["scores"]):
        if each["unknown"]:
            continue
        label = max(range(len(labels)), key=lambda n: each["scores"][labels[n]])
        start_s = 0.0 if place == 0 else grid.centre_s(place) - grid.stride_s / 2
        end_s = grid.centre_s(place) + grid.stride_s / 2
        if spans and spans[-1].label == label and abs(spans[-1].end_s - start_s) < 1e-6:
            start_s = spans.pop().start_s
        spans.append(Span(start_s, end_s, label, 0.0, start_s))
    return spans


if __name__ == "__main__":
    main()
