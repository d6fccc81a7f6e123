"""Bodies and answers of a timeline."""

from pydantic import BaseModel, Field

from model.config.method import QueryContext
from service.http.schemas import CONTEXT, FILE_NAME, Base64, Body

SHORTEST_WINDOW_S, LONGEST_WINDOW_S = 0.2, 120.0
SHORTEST_STRIDE_S = 0.05


class TimelineFields(Body):
    """How a video is looked at; what is not sent has a default."""

    window_s: float | None = Field(
        None,
        ge=SHORTEST_WINDOW_S,
        le=LONGEST_WINDOW_S,
        description="Length of a window; the median length of the task's clips.",
    )
    stride_s: float | None = Field(
        None,
        ge=SHORTEST_STRIDE_S,
        le=LONGEST_WINDOW_S,
        description="From one window to the next; a quarter of a window. Rounded, so that "
        "neighbours share their pictures.",
    )
    smooth_s: float | None = Field(
        None, ge=0, le=LONGEST_WINDOW_S, description="Scores are the mean over this; 0."
    )
    enter: float | None = Field(None, ge=0, le=1, description="Probability at which a span begins.")
    leave: float | None = Field(
        None, ge=0, le=1, description="Probability that it keeps; at most `enter`."
    )
    min_span_s: float | None = Field(
        None,
        ge=0,
        le=LONGEST_WINDOW_S,
        description="Shortest stretch at `enter` that makes a span.",
    )
    unknown_below: float | None = Field(
        None,
        ge=-1,
        le=1,
        description="`nearest` below which no span begins; the task's, or the checkpoint's.",
    )
    unknown_slack: float | None = Field(
        None, ge=0, le=2, description="By how much less `nearest` a span goes on."
    )
    scores: bool = Field(False, description="Show the scores of each window, too.")


class VideoBody(Body):
    """A video in JSON."""

    video: Base64 = Field(description="The file as base64.")
    name: str | None = Field(None, description="Name of its file, for the answer to name it by.")


class TimelineBody(TimelineFields):
    """A video to follow, in JSON."""

    clip: VideoBody


class ParametersView(BaseModel):
    """How spans were made: what was asked for, and the defaults of the rest."""

    smooth_s: float
    enter: float
    leave: float
    min_span_s: float
    unknown_below: float
    unknown_slack: float


class SpanView(BaseModel):
    """A part of the video that shows one label."""

    start_s: float
    end_s: float
    label: str
    score: float = Field(description="Mean probability of the label.")
    peak_s: float = Field(description="When the probability is highest.")


class WindowView(BaseModel):
    """The scores of one window, before anything is averaged."""

    start_s: float
    end_s: float
    scores: dict[str, float] = Field(description="Probability of each label.")
    nearest: float = Field(description="Cosine with the nearest label's clips.")
    unknown: bool = Field(description="`nearest` is below `unknown_below`.")


class BegunView(BaseModel):
    """Event `begun`: how the video is looked at."""

    task_id: str
    task_revision: int
    model_revision: str
    context: QueryContext = CONTEXT
    name: str | None = Field(description=FILE_NAME)
    codec: str
    duration_s: float | None = Field(description="By the video's headers; null: they do not say.")
    window_s: float
    stride_s: float
    parameters: ParametersView


class ProgressView(BaseModel):
    """Event `progress`."""

    reached_s: float = Field(description="How far the video is decoded.")
    settled_s: float = Field(description="Up to here no span changes any more.")
    windows: int = Field(description="That are scored.")


class WindowsView(BaseModel):
    """Event `windows`: new ones, where `scores` was asked for."""

    windows: list[WindowView]


class EndedView(BaseModel):
    """Event `ended`."""

    duration_s: float
    windows: int
    warnings: list[str]
    took_s: float = Field(description="From the whole upload to the answer.")


class TimelineView(BegunView, EndedView):
    """When the video shows which label; what no span covers is background."""

    duration_s: float = Field(description="Of what could be decoded.")
    spans: list[SpanView]
    scores: list[WindowView] | None = Field(description="With `scores`.")
