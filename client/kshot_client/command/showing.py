"""How results are written: lines for people, CSV, JSON."""

import csv
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from pydantic import BaseModel

from kshot_client.models.operations import Quota, SecondsQuota, Usage
from kshot_client.models.results import ClipResult
from kshot_client.models.tasks import Task, TaskEvent, TaskLine
from kshot_client.models.timelines import Span
from kshot_client.problems import SettingError

COLUMNS = ("path", "label", "score", "unknown", "margin", "nearest", "threshold", "error")
NONE = "-"


@contextmanager
def written_to(place: Path | None) -> Iterator[TextIO]:
    """Give where a result goes: a file, or stdout.

    Raises:
        SettingError: The file cannot be written.
    """
    if place is None:
        yield sys.stdout
        return
    try:
        file = place.open("w", encoding="utf-8", newline="")
    except OSError as error:
        raise SettingError(
            f"{place} cannot be written ({error.strerror}); name another place."
        ) from None
    with file:
        yield file


def as_json(value: BaseModel | Sequence[BaseModel] | object) -> str:
    """Write JSON, indented."""
    return json.dumps(_plain(value), indent=2, ensure_ascii=False)


def as_line(event: str, value: BaseModel) -> str:
    """Write an event as one line of JSON."""
    return json.dumps({"event": event, **value.model_dump(mode="json")}, ensure_ascii=False)


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value


def result_line(path: Path, result: ClipResult) -> str:
    """Write what a clip is."""
    if result.error is not None:
        return f"{path}\t{NONE}\t[{result.error.code}] {result.error.detail}"
    said = "unknown, nearest to " if result.unknown else ""
    return f"{path}\t{said}{result.label}\t{result.score or 0:.0%}"


def results_csv(found: Iterable[tuple[Path, ClipResult]], out: TextIO) -> None:
    """Write a line a clip, with a column for the score of each label."""
    rows = list(found)
    labels = next(
        ([row.label for row in result.ranking] for _, result in rows if result.ranking), []
    )
    lines = csv.writer(out, lineterminator="\n")
    lines.writerow([*COLUMNS, *(f"score[{label}]" for label in sorted(labels))])
    for path, result in rows:
        scores = {row.label: row.score for row in result.ranking}
        error = "" if result.error is None else f"[{result.error.code}] {result.error.detail}"
        own = (result.label, result.score, result.unknown, result.margin, result.nearest)
        lines.writerow(
            [path, *own, result.threshold, error, *(scores.get(name) for name in sorted(labels))]
        )


def span_line(span: Span) -> str:
    """Write what a part of a video shows."""
    return f"{_clock(span.start_s)}\t{_clock(span.end_s)}\t{span.label}\t{span.score:.0%}"


def task_row(line: TaskLine) -> str:
    """Write a task of a list."""
    labels = ", ".join(line.labels)
    return f"{line.id}\t{line.status}\t{line.clips} clips\t{line.name or NONE}\t{labels}"


def task_lines(task: Task) -> str:
    """Write a task, with its labels."""
    first = f"{task.id}\t{task.status}\trevision {task.revision}\t{task.name or NONE}"
    return "\n".join([first, *(f"  {label.label}\t{label.clips} clips" for label in task.labels)])


def event_line(event: TaskEvent) -> str:
    """Write how a task stands."""
    said = event.failure or f"{event.progress:.0%}"
    return f"revision {event.revision}\t{event.status}\t{said}"


def usage_lines(usage: Usage) -> str:
    """Write how much of each quota is used."""
    shown: dict[str, Quota | SecondsQuota] = {
        "tasks": usage.tasks,
        "bytes": usage.bytes,
        "clip-seconds": usage.clip_seconds,
        "frames": usage.frames,
    }
    return "\n".join(f"{name}\t{_used(quota)}" for name, quota in shown.items())


def _used(quota: Quota | SecondsQuota) -> str:
    if quota.limit is None:
        return f"{quota.used:.12g}, no limit"
    again = "" if quota.reset_s is None else f", whole again in {quota.reset_s:.0f} s"
    return f"{quota.used:.12g} of {quota.limit:.12g}{again}"


def _clock(at_s: float) -> str:
    minutes, seconds = divmod(at_s, 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours:d}:{minutes:02d}:{seconds:06.3f}"
