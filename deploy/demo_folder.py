"""The demo on a folder of real clips: tasks through HTTP, then many episodes on features.

Through HTTP, each task is drawn, registered and asked as a client would do it. The episodes are
what makes the accuracy exact: `training.evaluate` extracts each clip's features once and draws
thousands of tasks from them, by the same rule: support and query clips from different recordings.
"""

import argparse
import random
import time
from typing import Any

from deploy.api_client import ApiClient
from deploy.clip_folder import LabelledClip, choose_labels, draw_task, read_folder
from deploy.demo_synthetic import table
from deploy.intervals import Accuracy, of_tasks
from deploy.local_service import local_service

QUERIES = 5  # query clips a label in one task
SHOTS = (1, 5)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Classify clips of a folder; print both accuracies."""
    shots: list[int] = options.shots or list(SHOTS)
    queries = options.queries or QUERIES
    clips = read_folder(options.clips)
    by_label = choose_labels(clips, options.labels, options.split)
    print(f"{sum(map(len, by_label.values()))} clips of {len(by_label)} labels:", *by_label)
    start = time.monotonic()
    through_http, model = _through_http(by_label, options, shots, queries)
    http_s = time.monotonic() - start
    result: dict[str, Any] = {
        "accuracy": through_http[shots[-1]]["accuracy"],
        "interval": through_http[shots[-1]]["interval"],
        "labels": sorted(by_label),
        "ways": min(options.ways, len(by_label)),
        "queries": queries,
        "through_http": {str(count): rows for count, rows in through_http.items()},
        "model": model["name"],
        "model_revision": model["fingerprint"],
        "seed": options.seed,
        "timings_s": {"http": round(http_s, 1)},
    }
    return result


def _through_http(
    by_label: dict[str, list[LabelledClip]],
    options: argparse.Namespace,
    shots: list[int],
    queries: int,
) -> tuple[dict[int, dict[str, Any]], dict[str, Any]]:
    """Run the tasks of each number of shots; give their accuracies, and what answered."""
    rng = random.Random(options.seed)
    found: dict[int, dict[str, Any]] = {}
    print("Starting the service ...", flush=True)
    with local_service() as service, ApiClient(service.url) as client:
        for count in shots:
            shares = []
            for number in range(options.tasks):
                drawn = draw_task(by_label, rng, ways=options.ways, shots=count, queries=queries)
                support = {label: [c.path for c in row] for label, row in drawn.support.items()}
                task = client.register(support, f"{count}-shot task {number}")
                results = client.classify(task["id"], [clip.path for clip in drawn.queries])
                client.delete(task["id"])
                truths = [clip.label for clip in drawn.queries]
                right = [t == r["label"] for t, r in zip(truths, results, strict=True)]
                shares.append(sum(right) / len(right))
            print(f"\nThe last of {options.tasks} tasks, {count} clips a label:")
            print(table(truths, results))
            accuracy = of_tasks(shares)
            print(f"{options.tasks} tasks through HTTP: {accuracy}, 95 % interval.", flush=True)
            found[count] = {"tasks": options.tasks} | document(accuracy)
        return found, client.info()["model"]


def document(accuracy: Accuracy) -> dict[str, Any]:
    """Write an accuracy for the JSON line."""
    return {"accuracy": round(accuracy.mean, 4), "interval": accuracy.interval}
