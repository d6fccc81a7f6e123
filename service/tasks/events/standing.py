"""How a task stands at a moment, and what a change of that is called."""

from dataclasses import dataclass, replace
from typing import Literal

from service.stores.records import TaskRecord
from service.tasks.encoding import Preparation

Status = Literal["processing", "ready", "failed"]
Kind = Literal["progress", "ready", "failed", "changed", "deleted"]


@dataclass(frozen=True, slots=True)
class Standing:
    """What watchers of a task are told of, and nothing more."""

    revision: int
    status: Status
    percent: int  # of its preparation
    failure: str | None = None  # of a failed task: one sentence


@dataclass(frozen=True, slots=True)
class Event:
    """Something that became known of a task.

    Args:
        kind: What.
        standing: How the task stands now; as it last stood where it is deleted.
    """

    kind: Kind
    standing: Standing


def status_of(record: TaskRecord, preparation: Preparation | None) -> Status:
    """Tell whether a task can be used."""
    if record.state == "failed" or (preparation is not None and preparation.failed):
        return "failed"
    return "ready" if record.state == "decoded" and preparation is None else "processing"


def progress_of(record: TaskRecord, preparation: Preparation | None) -> float:
    """Tell how much of a task's preparation is done, from 0 to 1."""
    if preparation is not None:
        return preparation.progress
    return 1.0 if record.state == "decoded" else 0.0


def standing_of(record: TaskRecord, preparation: Preparation | None) -> Standing:
    """Tell how a task stands."""
    return Standing(
        revision=record.revision,
        status=status_of(record, preparation),
        percent=int(100 * progress_of(record, preparation)),
        failure=record.failure,
    )


def event_between(told: Standing | None, now: Standing | None) -> Event | None:
    """Tell what a watcher has not been told of; None where that is nothing.

    Args:
        told: What it was told last.
        now: How the task stands; None where it is gone.
    """
    if now is None:
        assert told is not None
        return Event("deleted", told)
    if told is not None and replace(told, failure=None) == replace(now, failure=None):
        return None
    if told is not None and told.status != "processing" and told.revision != now.revision:
        return Event("changed", now)
    return Event("progress" if now.status == "processing" else now.status, now)
