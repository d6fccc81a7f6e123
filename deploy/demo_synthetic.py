"""The demo without data: synthetic actions of unseen trios of motions, made as video files."""

import argparse
import contextlib
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from deploy.demo_questions import answers, model_of
from deploy.demo_report import document, of_answers, table
from deploy.local_service import local_service
from kshot_client import Client
from training.synthetic.actions import Action, demo_actions
from training.synthetic.order_set import draw_families
from training.synthetic.rendering import FLOWING, SEPARATE, Course, write_clip

HELD_OUT = 10  # clips a label that are asked
SHOTS = 5


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Register labels that differ in what moves and how, and classify held-out clips.

    Labels that differ in order alone come with their three sentences, as a client would write them.
    """
    shots, queries = (options.shots or [SHOTS])[0], options.queries or HELD_OUT
    actions, course = draw_actions(options.ways, options.seed, order=options.order)
    stages = {action.label: action.stages for action in actions} if options.order else None
    with _folder(options.keep) as folder:
        start = time.monotonic()
        print(f"Making {len(actions) * (shots + queries)} clips ...", flush=True)
        clips = _make(folder, actions, course, shots + queries, options.seed)
        made_s = time.monotonic() - start
        print("Starting the service ...", flush=True)
        with local_service() as service, Client(service.url) as client:
            result = _ask(client, clips, shots, stages)
    timings = {"make_clips": round(made_s, 2), "start": round(service.start_s, 2)}
    return result | {"seed": options.seed, "timings_s": timings | result["timings_s"]}


def _ask(
    client: Client,
    clips: Mapping[str, Sequence[Path]],
    shots: int,
    stages: Mapping[str, Sequence[str]] | None,
) -> dict[str, Any]:
    """Register the first clips of each label, classify the others, print what came back."""
    start = time.monotonic()
    support = {label: paths[:shots] for label, paths in clips.items()}
    task = client.register(support, name="synthetic actions", descriptions=stages)
    registered_s = time.monotonic() - start
    asked = [
        (label, path)
        for column in zip(*(paths[shots:] for paths in clips.values()), strict=True)
        for label, path in zip(clips, column, strict=True)
    ]
    start = time.monotonic()
    results = answers(client, task.id, [path for _, path in asked])
    classified_s = time.monotonic() - start
    served = model_of(client)
    client.delete(task.id)
    truths = [label for label, _ in asked]
    print(f"Registered {len(clips)} labels x {shots} clips in {registered_s:.1f} s.\n")
    print(table(truths, results))
    right = sum(truth == result.label for truth, result in zip(truths, results, strict=True))
    share = of_answers(right, len(truths))
    print(f"\n{right} of {len(truths)} held-out clips: {share}, 95 % interval.\n")
    return document(share) | {
        "labels": len(clips),
        "shots": shots,
        "clips": len(truths),
        "correct": right,
        **served,
        "trained": task.trained,
        "text_source": task.text,
        "timings_s": {"register": round(registered_s, 2), "classify": round(classified_s, 2)},
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
