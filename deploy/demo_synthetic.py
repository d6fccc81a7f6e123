"""The demo without data: synthetic actions of unseen trios of motions, made as video files."""

import argparse
import contextlib
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from deploy.api_client import ApiClient
from deploy.intervals import of_answers
from deploy.local_service import local_service
from training.synthetic.actions import Action, demo_actions
from training.synthetic.order_set import draw_families
from training.synthetic.rendering import FLOWING, SEPARATE, Course, write_clip

HELD_OUT = 10  # clips a label that are asked
SHOTS = 5
SHOWN = 3  # labels of a printed ranking


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Register labels that differ in what moves and how, and classify held-out clips.

    Labels that differ in order alone come with their three sentences, as a client would write them.
    """
    shots, queries = (options.shots or [SHOTS])[0], options.queries or HELD_OUT
    actions, course = draw_actions(options.ways, options.seed, order=options.order)
    with _folder(options.keep) as folder:
        start = time.monotonic()
        print(f"Making {len(actions) * (shots + queries)} clips ...", flush=True)
        clips = _make(folder, actions, course, shots + queries, options.seed)
        made_s = time.monotonic() - start
        print("Starting the service ...", flush=True)
        with local_service() as service, ApiClient(service.url) as client:
            model = client.info()["model"]
            start = time.monotonic()
            support = {label: paths[:shots] for label, paths in clips.items()}
            stages = {action.label: action.stages for action in actions} if options.order else None
            task = client.register(support, "synthetic actions", stages)
            registered_s = time.monotonic() - start
            asked = [
                (label, path)
                for column in zip(*(paths[shots:] for paths in clips.values()), strict=True)
                for label, path in zip(clips, column, strict=True)
            ]
            start = time.monotonic()
            results = client.classify(task["id"], [path for _, path in asked])
            classified_s = time.monotonic() - start
            client.delete(task["id"])
    truths = [label for label, _ in asked]
    print(f"Registered {len(clips)} labels x {shots} clips in {registered_s:.1f} s.\n")
    print(table(truths, results))
    right = sum(truth == result["label"] for truth, result in zip(truths, results, strict=True))
    accuracy = of_answers(right, len(truths))
    print(f"\n{right} of {len(truths)} held-out clips: {accuracy}, 95 % interval.\n")
    return {
        "accuracy": round(accuracy.mean, 4),
        "interval": accuracy.interval,
        "labels": len(clips),
        "shots": shots,
        "clips": len(truths),
        "correct": right,
        "model": model["name"],
        "model_revision": model["fingerprint"],
        "trained": model["trained"],
        "text_source": task["text"],
        "seed": options.seed,
        "timings_s": {
            "make_clips": round(made_s, 2),
            "start": round(service.start_s, 2),
            "register": round(registered_s, 2),
            "classify": round(classified_s, 2),
        },
    }


@contextlib.contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    """Give a folder for the clips: one that stays where the caller named it, or one that goes."""
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep
        return
    with tempfile.TemporaryDirectory(prefix="kshot-clips-") as folder:
        yield Path(folder)


def draw_actions(ways: int, seed: int, *, order: bool) -> tuple[Sequence[Action], Course]:
    """Return actions that differ in everything, or in the order of their motions alone.

    The latter are made so that a clip's frames in any order tell nothing of the label.
    """
    if not order:
        return demo_actions(ways, seed), FLOWING
    (family,) = draw_families({"test": 1}, (ways, ways), seed, carried=False)
    return family.actions, SEPARATE


def _make(
    folder: Path, actions: Sequence[Action], course: Course, count: int, seed: int
) -> dict[str, list[Path]]:
    """Write `count` clips of each action; no two share a seed."""
    clips: dict[str, list[Path]] = {}
    for place, action in enumerate(actions):
        name = action.shape if course == FLOWING else f"{action.shape}-order{place}"
        clips[action.label] = [folder / f"{name}-{index}.mp4" for index in range(count)]
        for index, path in enumerate(clips[action.label]):
            write_clip(path, action, (seed * 1000 + place) * 1000 + index, course=course)
    return clips


def table(truths: list[str], results: list[dict[str, Any]]) -> str:
    """Show, for each label, how many clips were right and the ranking of its first one.

    Args:
        truths: Label of each clip.
        results: What the service said of each clip.
    """
    labels = sorted(set(truths))
    number = {label: place for place, label in enumerate(labels, start=1)}
    asked = Counter(truths)
    right = Counter(
        truth for truth, result in zip(truths, results, strict=True) if result["label"] == truth
    )
    width = max(len("label"), *(len(label) for label in labels))
    lines = [f"    {'label':<{width}}  clips  right  ranking of its first clip"]
    for label in labels:
        first = results[truths.index(label)]["ranking"][:SHOWN]
        ranking = "  ".join(f"({number[row['label']]}) {row['score']:.3f}" for row in first)
        row = f"({number[label]}) {label:<{width}}  {asked[label]:>5}  {right[label]:>5}"
        lines.append(f"{row}  {ranking}")
    return "\n".join(lines)
