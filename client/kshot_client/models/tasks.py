"""Tasks, and what a change makes of them."""

from typing import Literal

from pydantic import Field

from kshot_client.models.answer import Answer
from kshot_client.models.problems import ClipProblem

Status = Literal["processing", "ready", "failed"]


class Label(Answer):
    """One label of a task."""

    label: str
    clips: int
    descriptions: list[str]
    text_source: str


class SupportClip(Answer):
    """One support clip as it was understood."""

    clip_id: str
    name: str | None
    index: int | None
    label: str
    duration_s: float | None
    codec: str | None
    frames_s: list[float]
    distinct: int
    warnings: list[str]


class InboxPolicy(Answer):
    """Which queries a task remembers without being asked."""

    keep: int = 50
    below: float = 0.6


class Accuracy(Answer):
    """A share of held-out clips that were recognised, with its interval of 95 % (Wilson)."""

    value: float
    low: float
    high: float
    clips: int


class DiagnosisShort(Answer):
    """A diagnosis in short."""

    leave_one_out: Accuracy | None
    findings: dict[str, int]


class Task(Answer):
    """A task."""

    id: str
    name: str | None
    status: Status
    progress: float
    failure: str | None
    revision: int
    created_at: str
    expires_at: str | None
    unknown_below: float | None
    inbox: InboxPolicy | None = None
    threshold: float
    threshold_by: str
    none_of_these: int
    labels: list[Label]
    clips: list[SupportClip]
    model: str
    model_revision: str
    trained: bool
    context: str
    text: str | None
    text_reason: str | None
    refused_clips: list[ClipProblem] = Field(default_factory=list)
    diagnosis: DiagnosisShort | None = None


class TaskLine(Answer):
    """A task in a list; `task` gives the whole of it."""

    id: str
    name: str | None
    status: Status
    revision: int
    created_at: str
    expires_at: str | None
    labels: list[str]
    clips: int
    model_revision: str


class TaskEvent(Answer):
    """How a task stands after what has happened."""

    task_id: str
    revision: int
    status: Literal["processing", "ready", "failed", "deleted"]
    progress: float
    failure: str | None


class TaskPage(Answer):
    """Tasks, newest first."""

    tasks: list[TaskLine]
    next_cursor: str | None


class Change(Answer):
    """What a change came to."""

    added_clips: list[str]
    refused_clips: list[ClipProblem]
    encoded_clips: int
    encoded_why: str | None


class ChangedTask(Task):
    """A task after a change."""

    change: Change
