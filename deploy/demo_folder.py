"""The demo on a folder of real clips: tasks through HTTP, then many episodes on features.

Through HTTP, each task is drawn, registered and asked as a client would do it. The episodes make
the accuracy exact: `training.evaluation.readings` extracts each clip's features once and scores
thousands of tasks, drawn by the same rule: support and query clips from different recordings.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deploy.api_client import ApiClient
from deploy.clip_folder import most_queries, read_clips
from deploy.demo_synthetic import table
from deploy.intervals import Accuracy, of_tasks
from deploy.local_service import local_service
from model.checkpoint import load_recognizer
from model.text import template_stages
from service.settings import Settings
from training.data.datasets import LabelledClip
from training.data.episodes import Episode, draw_episode
from training.evaluation.layouts import Layout, draw_layouts
from training.evaluation.readings import Examination
from training.features.tokens import TokenSources

QUERIES = 5  # query clips a label in one task
SHOTS = (1, 5)
TEACHER = "timm:vit_tiny_patch16_224"


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Classify clips of a folder; print the accuracy of tasks through HTTP, and of episodes."""
    clips = read_clips(options.clips, options.labels, options.split)
    labels = sorted({clip.label for clip in clips})
    ways = min(options.ways, len(labels))
    shots: list[int] = options.shots or list(SHOTS)
    queries = min(options.queries or QUERIES, most_queries(clips, max(shots)))
    print(f"{len(clips)} clips of {len(labels)} labels: {', '.join(labels)}")
    start = time.monotonic()
    through_http, model = _through_http(clips, options, ways, shots, queries)
    http_s = time.monotonic() - start
    result: dict[str, Any] = {
        "accuracy": through_http[-1]["accuracy"],
        "interval": through_http[-1]["interval"],
        "labels": labels,
        "ways": ways,
        "queries": queries,
        "seed": options.seed,
        "model": model["name"],
        "model_revision": model["fingerprint"],
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
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Run the tasks of each number of shots; give their accuracies, and what answered."""
    found: list[dict[str, Any]] = []
    print("Starting the service ...", flush=True)
    with local_service() as service, ApiClient(service.url) as client:
        for count in shots:
            shares: list[float] = []
            for number in range(options.tasks):
                drawn = draw_episode(
                    clips, ways=ways, shots=count, queries=queries, seed=options.seed, number=number
                )
                truths, results = _ask(client, clips, drawn, f"{count}-shot task {number}")
                right = [t == r["label"] for t, r in zip(truths, results, strict=True)]
                shares.append(sum(right) / len(right))
            print(f"\nThe last of {options.tasks} tasks, {count} clips a label:")
            print(table(truths, results))
            accuracy = of_tasks(shares)
            print(f"{options.tasks} tasks through HTTP: {accuracy}, 95 % interval.", flush=True)
            found.append({"shots": count, "tasks": options.tasks} | document(accuracy))
        return found, client.info()["model"]


def _ask(
    client: ApiClient, clips: Sequence[LabelledClip], drawn: Episode, name: str
) -> tuple[list[str], list[dict[str, Any]]]:
    """Register one drawn task and classify its queries; give the truths and the answers."""
    support: dict[str, list[Path]] = {label: [] for label in drawn.labels}
    for index, place in zip(drawn.support, drawn.support_classes, strict=True):
        support[drawn.labels[place]].append(clips[index].path)
    task = client.register(support, name)
    results = client.classify(task["id"], [clips[index].path for index in drawn.query])
    client.delete(task["id"])
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
    examination = Examination(
        draw_layouts(
            clips,
            [Layout(ways, count) for count in shots],
            queries=queries,
            episodes=options.episodes,
            seed=options.seed,
        ),
        labels,
        TokenSources("clips", clips, cache=None, half=False),
        {label: template_stages(label) for label in labels},
    )
    for source, weights in sources:
        recognizer = load_recognizer(source, weights=weights)
        for reading in examination.read(recognizer, checkpoint=source, method=source):
            count, found = reading.kind.layout.shots, reading.tally.accuracy
            mean, reach = found.mean / 100, found.interval / 100
            accuracy = Accuracy(mean, mean - reach, mean + reach)
            print(f"{source:<26} {ways}-way {count}-shot: {accuracy}", flush=True)
            rows.append(
                {"checkpoint": source, "shots": count, "episodes": options.episodes}
                | document(accuracy)
            )
    return rows


def document(accuracy: Accuracy) -> dict[str, Any]:
    """Write an accuracy for the JSON line."""
    return {"accuracy": round(accuracy.mean, 4), "interval": accuracy.interval}
