"""The demo on a folder of real clips: tasks through HTTP, then many episodes on features.

Through HTTP, each task is drawn, registered and asked as a client would do it. The episodes make
the accuracy exact: `training.evaluation.examination` extracts each clip's features once and scores
thousands of tasks, drawn by the same rule: support and query clips from different recordings.

An `index.csv` (path, label, split, source_group) in the folder or above it says which clips come
from one recording: a clip is easily recognised by its own room. Without an index, every file
counts as a recording.
"""

import argparse
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deploy.demo_questions import answers, model_of
from deploy.demo_report import Share, document, of_tasks, table
from deploy.local_service import local_service
from kshot_client import Client
from kshot_client.models.results import ClipResult
from model.checkpoint import load_recognizer
from model.text import template_stages
from service.limits import limits_of, media_limits
from service.settings import Settings
from training.data.datasets import LabelledClip
from training.data.episodes import Episode, draw_episode
from training.data.listings import VIDEOS, read_index
from training.errors import InputError
from training.evaluation.examination import Examination, Layout, draw_layouts
from training.features.readable import readable
from training.features.tokens import TokenSources

QUERIES = 5  # query clips a label in one task
SHOTS = (1, 5)
TEACHER = "timm:vit_tiny_patch16_224"


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Classify clips of a folder; print the accuracy of tasks through HTTP, and of episodes."""
    clips = usable_clips(options.clips, options.labels, options.split)
    labels = sorted({clip.label for clip in clips})
    ways = min(options.ways, len(labels))
    shots: list[int] = options.shots or list(SHOTS)
    queries = min(options.queries or QUERIES, most_queries(clips, max(shots)))
    print(f"{len(clips)} clips of {len(labels)} labels: {', '.join(labels)}")
    start = time.monotonic()
    through_http, served = _through_http(clips, options, ways, shots, queries)
    http_s = time.monotonic() - start
    result: dict[str, Any] = {
        "accuracy": through_http[-1]["accuracy"],
        "interval": through_http[-1]["interval"],
        "labels": labels,
        "ways": ways,
        "queries": queries,
        "seed": options.seed,
        **served,
        "through_http": through_http,
    }
    start = time.monotonic()
    if options.episodes:
        result["episodes"] = _episodes(clips, options, ways, shots, queries)
    timings = {"http": http_s, "episodes": time.monotonic() - start}
    return result | {"timings_s": {name: round(value, 1) for name, value in timings.items()}}


def _through_http(
    clips: Sequence[LabelledClip],
    options: argparse.Namespace,
    ways: int,
    shots: Sequence[int],
    queries: int,
) -> tuple[list[dict[str, Any]], dict[str, object]]:
    """Run the tasks of each number of shots; give their accuracies, and what answered."""
    found: list[dict[str, Any]] = []
    print("Starting the service ...", flush=True)
    with local_service() as service, Client(service.url) as client:
        for count in shots:
            shares: list[float] = []
            for number in range(options.tasks):
                drawn = draw_episode(
                    clips, ways=ways, shots=count, queries=queries, seed=options.seed, number=number
                )
                truths, results = _ask(client, clips, drawn, f"{count}-shot task {number}")
                right = [t == r.label for t, r in zip(truths, results, strict=True)]
                shares.append(sum(right) / len(right))
            print(f"\nThe last of {options.tasks} tasks, {count} clips a label:")
            print(table(truths, results))
            accuracy = of_tasks(shares)
            print(f"{options.tasks} tasks through HTTP: {accuracy}, 95 % interval.", flush=True)
            found.append({"shots": count, "tasks": options.tasks} | document(accuracy))
        return found, model_of(client)


def _ask(
    client: Client, clips: Sequence[LabelledClip], drawn: Episode, name: str
) -> tuple[list[str], list[ClipResult]]:
    """Register one drawn task and classify its queries; give the truths and the answers."""
    support: dict[str, list[Path]] = {label: [] for label in drawn.labels}
    for index, place in zip(drawn.support, drawn.support_classes, strict=True):
        support[drawn.labels[place]].append(clips[index].path)
    task = client.register(support, name=name)
    results = answers(client, task.id, [clips[index].path for index in drawn.query])
    client.delete(task.id)
    return [drawn.labels[place] for place in drawn.query_classes], results


def _episodes(
    clips: Sequence[LabelledClip],
    options: argparse.Namespace,
    ways: int,
    shots: Sequence[int],
    queries: int,
) -> list[dict[str, Any]]:
    """Score many episodes without HTTP: what the service serves, and the teacher if asked."""
    settings = Settings.from_env()
    sources = [(settings.checkpoint, settings.backbone_weights)]
    if options.teacher:
        sources.append((TEACHER, options.teacher))
    rows: list[dict[str, Any]] = []
    print(f"\n{options.episodes} episodes on the same clips, features extracted once:", flush=True)
    labels = sorted({clip.label for clip in clips})
    asked = [Layout(ways, count) for count in shots]
    layouts = draw_layouts(
        clips, asked, queries=queries, episodes=options.episodes, seed=options.seed
    )
    examination = Examination(
        options.split,
        layouts,
        labels,
        TokenSources("clips", clips, cache=None, half=False),
        lambda count: {label: template_stages(label, count) for label in labels},
    )
    for source, weights in sources:
        recognizer = load_recognizer(source, weights=weights)
        for result in examination.ask(recognizer, checkpoint=source, method=source):
            count, found = result.setting.layout.shots, result.tally.accuracy
            mean, reach = found.mean / 100, found.interval / 100
            accuracy = Share(mean, mean - reach, mean + reach)
            print(f"{source:<26} {ways}-way {count}-shot: {accuracy}", flush=True)
            rows.append(
                {"checkpoint": source, "shots": count, "episodes": options.episodes}
                | document(accuracy)
            )
    return rows


def usable_clips(folder: Path, labels: Sequence[str], split: str) -> list[LabelledClip]:
    """Return those of `read_clips` that the service takes; the others are counted and named.

    Raises:
        InputError: As `read_clips`, or there is none.
    """
    taken = media_limits(limits_of(Settings.from_env()))
    return readable(read_clips(folder, labels, split), limits=taken)


def read_clips(folder: Path, labels: Sequence[str], split: str) -> list[LabelledClip]:
    """List the clips of the wanted labels: those named, or of the index's split, or all.

    Raises:
        InputError: There is no such folder, no clip in it, not such a label, or only one; or the
            index lacks a column.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; give one that holds <label>/<clip>.")
    indices = (folder / "index.csv", folder.resolve().parent / "index.csv")
    index = next((path for path in indices if path.is_file()), None)
    clips, in_split = _indexed(folder, index, split) if index else (_unindexed(folder), set())
    if not clips:
        raise InputError(
            f"{folder} holds no clips; put them at <label>/<clip> ({', '.join(sorted(VIDEOS))})."
        )
    known = {clip.label for clip in clips}
    if unknown := sorted(set(labels) - known):
        raise InputError(f"No clips of {unknown[0]!r}; there are {', '.join(sorted(known))}.")
    wanted = set(labels) or in_split or known
    if len(wanted) < 2:
        raise InputError(f"{len(wanted)} label is not enough for a task; give at least 2.")
    return sorted((c for c in clips if c.label in wanted), key=lambda clip: str(clip.path))


def _indexed(folder: Path, index: Path, split: str) -> tuple[list[LabelledClip], set[str]]:
    """Read the rows of an index whose clips lie in the folder, and the labels of its split."""
    inside = folder.resolve()
    rows = read_index(index)
    clips = [
        LabelledClip(index.parent / row["path"], row["label"], row["source_group"]) for row in rows
    ]
    found = [clip for clip in clips if clip.path.resolve().is_relative_to(inside)]
    return found, {row["label"] for row in rows if row["split"] == split}


def _unindexed(folder: Path) -> list[LabelledClip]:
    """Take each folder's name as the label of its clips, each file as a recording."""
    return [
        LabelledClip(path, path.parent.name, str(path))
        for path in folder.glob("*/*")
        if path.suffix.lower() in VIDEOS
    ]


def most_queries(clips: Sequence[LabelledClip], shots: int) -> int:
    """Count the query clips that every label has beside its support clips; at least 1."""
    return max(1, min(Counter(clip.label for clip in clips).values()) - shots)
