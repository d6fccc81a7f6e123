"""When a long video shows what: the whole of it, and events on the way."""

from kshot_client.models.answer import Answer


class Parameters(Answer):
    """How spans were made: what was asked for, and the defaults of the rest."""

    smooth_s: float
    enter: float
    leave: float
    min_span_s: float
    unknown_below: float
    unknown_slack: float


class Span(Answer):
    """A part of the video that shows one label."""

    start_s: float
    end_s: float
    label: str
    score: float
    peak_s: float


class Window(Answer):
    """The scores of one window, before anything is averaged."""

    start_s: float
    end_s: float
    scores: dict[str, float]
    nearest: float
    unknown: bool


class Begun(Answer):
    """Event `begun`: how the video is looked at."""

    task_id: str
    task_revision: int
    model_revision: str
    context: str
    name: str | None
    codec: str
    duration_s: float | None
    window_s: float
    stride_s: float
    parameters: Parameters


class Windows(Answer):
    """Event `windows`: new ones, where `scores` was asked for."""

    windows: list[Window]


class Progress(Answer):
    """Event `progress`."""

    reached_s: float
    settled_s: float
    windows: int


class Ended(Answer):
    """Event `ended`."""

    duration_s: float
    windows: int
    warnings: list[str]
    took_s: float


class Timeline(Begun, Ended):
    """When the video shows which label; what no span covers is background."""

    duration_s: float
    spans: list[Span]
    scores: list[Window] | None
