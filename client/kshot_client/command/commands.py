"""What the commands do; each returns the exit status."""

import argparse
import json
from pathlib import Path
from typing import Literal, TextIO

from kshot_client.blocking import Client
from kshot_client.command import showing
from kshot_client.command.bars import bytes_bar, counted, seconds_bar
from kshot_client.command.folders import clips_of, labelled
from kshot_client.models.results import ClipResult
from kshot_client.models.tasks import Task
from kshot_client.models.timelines import Begun, Progress, Span
from kshot_client.operations.requests import sizes_of
from kshot_client.operations.timelines import Event
from kshot_client.problems import SettingError

DONE, SOME_FAILED = 0, 4


def register(client: Client, options: argparse.Namespace) -> int:
    """Make a task of a folder."""
    support = labelled(options.folder)
    size = sum(sum(sizes_of(clips)) for clips in support.values())
    told = None if options.descriptions is None else _descriptions(options.descriptions)
    with bytes_bar(size, quiet=options.quiet) as progress:
        task = client.register(
            support,
            name=options.name or options.folder.resolve().name,
            descriptions=told,
            ttl_s=options.ttl_s,
            allow_partial=options.allow_partial,
            wait=not options.no_wait,
            progress=progress,
        )
    return _made(task, options)


def classify(client: Client, options: argparse.Namespace) -> int:
    """Classify files and the videos of folders."""
    clips = clips_of(options.paths)
    remember = True if options.remember else None
    found = client.classify_all(options.task, clips, remember=remember)
    shown = zip(clips, counted(found, len(clips), "clip", quiet=options.quiet), strict=True)
    results: list[tuple[Path, ClipResult]] = []
    with showing.written_to(options.out) as out:
        for path, result in shown:
            results.append((path, result))
            if not options.json and not options.csv:
                print(showing.result_line(path, result), file=out, flush=True)
        if options.csv:
            showing.results_csv(results, out)
        if options.json:
            documents = [
                {"path": str(path), **result.model_dump(mode="json")} for path, result in results
            ]
            print(showing.as_json(documents), file=out)
    return SOME_FAILED if any(result.error is not None for _, result in results) else DONE


def watch(client: Client, options: argparse.Namespace) -> int:
    """Follow a long video."""
    asked = {
        "window_s": options.window_s,
        "enter": options.enter,
        "leave": options.leave,
        "unknown_below": options.unknown_below,
    }
    with showing.written_to(options.out) as out:
        if options.csv or options.vtt:
            form: Literal["csv", "vtt"] = "csv" if options.csv else "vtt"
            out.write(client.timeline_text(options.task, options.video, form, **asked))
            return DONE
        with seconds_bar(quiet=options.quiet) as bar:
            for event in client.timeline(options.task, options.video, **asked):
                if isinstance(event, Begun):
                    bar.total = event.duration_s
                elif isinstance(event, Progress):
                    bar.update(event.reached_s - bar.n)
                _show_event(event, options, out)
    return DONE


def tasks(client: Client, options: argparse.Namespace) -> int:
    """List the tasks."""
    found = list(client.tasks())
    print(showing.as_json(found) if options.json else "\n".join(map(showing.task_row, found)))
    return DONE


def show(client: Client, options: argparse.Namespace) -> int:
    """Show a task."""
    task = client.task(options.task)
    print(showing.as_json(task) if options.json else showing.task_lines(task))
    return DONE


def follow(client: Client, options: argparse.Namespace) -> int:
    """Tell how a task stands, until it is deleted."""
    for event in client.watch_task(options.task):
        line = showing.as_line("task", event) if options.json else showing.event_line(event)
        print(line, flush=True)
    return DONE


def diagnose(client: Client, options: argparse.Namespace) -> int:
    """Say what may be wrong with a task."""
    found = client.diagnose(options.task)
    if options.json:
        print(showing.as_json(found))
        return DONE
    if found.leave_one_out is not None:
        share = found.leave_one_out
        print(
            f"{share.value:.0%} of {share.clips} held-out clips, {share.low:.0%} - {share.high:.0%}"
        )
    for finding in found.findings:
        print(f"{finding.sentence} {finding.remedy}")
    return DONE


def delete(client: Client, options: argparse.Namespace) -> int:
    """Delete a task."""
    client.delete(options.task)
    return DONE


def export(client: Client, options: argparse.Namespace) -> int:
    """Write a task into a file."""
    place: Path = options.out or Path(f"kshot-{options.task}.zip")
    content = client.export_task(options.task)
    try:
        place.write_bytes(content)
    except OSError as error:
        raise SettingError(
            f"{place} cannot be written ({error.strerror}); name another with --out."
        ) from None
    print(showing.as_json({"path": str(place), "bytes": len(content)}) if options.json else place)
    return DONE


def take_in(client: Client, options: argparse.Namespace) -> int:
    """Make a task of such a file."""
    with bytes_bar(sum(sizes_of([options.file])), quiet=options.quiet) as progress:
        task = client.import_task(options.file, wait=not options.no_wait, progress=progress)
    return _made(task, options)


def info(client: Client, options: argparse.Namespace) -> int:
    """Tell what runs there."""
    found = client.info()
    model, runtime = found.model, found.runtime
    runs = f"{runtime.kind} {runtime.precision} on {runtime.device}"
    said = f"kshot {found.version}\t{model.name}\t{runs}"
    print(showing.as_json(found) if options.json else said)
    return DONE


def usage(client: Client, options: argparse.Namespace) -> int:
    """Tell what may be used, and is."""
    found = client.usage()
    print(showing.as_json(found) if options.json else showing.usage_lines(found))
    return DONE


def _made(task: Task, options: argparse.Namespace) -> int:
    print(showing.as_json(task) if options.json else task.id)
    return SOME_FAILED if task.refused_clips else DONE


def _show_event(event: Event, options: argparse.Namespace, out: TextIO) -> None:
    if options.json:
        print(showing.as_line(type(event).__name__.lower(), event), file=out, flush=True)
    elif isinstance(event, Span):
        print(showing.span_line(event), file=out, flush=True)


def _descriptions(place: Path) -> dict[str, list[str]]:
    """Read sentences by label from a file of JSON."""
    try:
        read: dict[str, list[str]] = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingError(
            f"{place} cannot be read ({error}); write JSON of a list of sentences a label."
        ) from None
    return read
