"""What clips are, what a task remembers of them, and how well it does."""

from pydantic import Field

from kshot_client.models.answer import Answer
from kshot_client.models.problems import Problem
from kshot_client.models.tasks import Accuracy


class Ranked(Answer):
    """One label's part in an answer."""

    label: str
    score: float
    video: float
    text: float | None
    stages: list[float] | None


class Saliency(Answer):
    """Where in the sampled frames the answer's label was seen.

    `frames` holds the rows of a grid of square cells for each frame, 0 to 1.
    """

    method: str
    label: str
    frames: list[list[list[float]]]


class ClipResult(Answer):
    """What one query clip is, or why it could not be read."""

    clip_index: int
    name: str | None = None
    label: str | None = None
    score: float | None = None
    unknown: bool | None = None
    nearest: float | None = None
    threshold: float | None = None
    query_id: str | None = None
    margin: float | None = None
    ranking: list[Ranked] = Field(default_factory=list)
    frames_s: list[float] = Field(default_factory=list)
    saliency: Saliency | None = None
    warnings: list[str] = Field(default_factory=list)
    error: Problem | None = None


class Timing(Answer):
    """Where the time went, milliseconds."""

    decode: float
    queue: float
    compute: float


class Classification(Answer):
    """The answer to classify."""

    task_id: str
    task_revision: int
    model_revision: str
    context: str
    text_source: str | None
    text_reason: str | None
    threshold_by: str
    results: list[ClipResult]
    timing_ms: Timing


class Score(Answer):
    """A label and its score."""

    label: str
    score: float


class InboxQuery(Answer):
    """One query, as it was answered."""

    query_id: str
    name: str | None
    answered_at: str
    kept_until: str
    task_revision: int
    model_revision: str
    label: str
    score: float
    margin: float
    unknown: bool
    nearest: float
    threshold: float
    ranking: list[Score]
    duration_s: float | None
    frames_s: list[float]
    warnings: list[str]


class Inbox(Answer):
    """Queries that a task remembers, the least certain first."""

    task_id: str
    task_revision: int
    none_of_these: int
    queries: list[InboxQuery]


class Confusion(Answer):
    """Clips of one label that are taken for another."""

    label: str
    taken_for: str
    share: float


class Finding(Answer):
    """One thing that may be wrong."""

    code: str
    label: str | None
    clip_id: str | None
    others: list[str]
    sentence: str
    remedy: str


class Enough(Answer):
    """Whether there are enough examples."""

    measured: dict[str, float]
    now: float
    one_more: float
    label: str | None


class Diagnosis(Answer):
    """What the clips of a task, held out in turn, say of it."""

    task_id: str
    task_revision: int
    model_revision: str
    leave_one_out: Accuracy | None
    labels: dict[str, Accuracy | None]
    confusions: list[Confusion]
    enough: Enough | None
    findings: list[Finding]
    judged_by: str
