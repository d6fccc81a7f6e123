"""Request and response bodies; the routes' OpenAPI document is made of these."""

import binascii
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, EncodedBytes, EncoderProtocol, Field
from pydantic_core import PydanticCustomError

from model.config.method import QueryContext
from service.http.diagnosis.views import DiagnosisShort
from service.http.explained.views import EXPLAIN, WHERE, SaliencyView
from service.http.inbox.policy import WHOSE, InboxPolicyBody
from service.stores.inboxes.policy import ThresholdBy
from service.tasks.inputs import TextSource

BASE64_FAULT = "base64_invalid"  # as pydantic lists it
Status = Literal["processing", "ready", "failed"]
TextOrigin = Literal[TextSource, "mixed"]


class StrictBase64(EncoderProtocol):
    """Base64 by RFC 4648; pydantic's own `Base64Bytes` skips characters that are not base64."""

    @classmethod
    def decode(cls, data: bytes) -> bytes:
        """Return the bytes.

        Raises:
            PydanticCustomError: It is not base64.
        """
        try:
            return binascii.a2b_base64(data, strict_mode=True)
        except binascii.Error:
            raise PydanticCustomError(
                BASE64_FAULT,
                "is not base64; encode the file's bytes by RFC 4648, without line breaks or a "
                "data: prefix",
            ) from None

    @classmethod
    def encode(cls, value: bytes) -> bytes:
        """Return the base64 of bytes."""
        return binascii.b2a_base64(value, newline=False)

    @classmethod
    def get_json_format(cls) -> str:
        """Name the format in the OpenAPI document."""
        return "base64"


Base64 = Annotated[bytes, Field(strict=False), EncodedBytes(encoder=StrictBase64)]


class Body(BaseModel):
    """Parent of all request bodies: refuses unknown fields, and numbers in the place of strings."""

    model_config = ConfigDict(extra="forbid", strict=True)


FILE_NAME = "Name of the clip's file, as it was sent."


class ClipBody(Body):
    """One clip in JSON: a video file or its pictures, as base64."""

    video: Base64 | None = Field(None, description="A video file as base64.")
    frames: list[Base64] | None = Field(
        None, description="JPEG or PNG pictures in order, as base64."
    )
    name: str | None = Field(None, description="Name of its file, for answers to name it by.")
    start_s: float | None = Field(None, description="Where the action starts, seconds.")
    end_s: float | None = Field(None, description="Where the action ends, seconds.")


class LabelBody(Body):
    """One label of a new task, with its support clips."""

    label: str = Field(examples=["wave"])
    descriptions: list[str] | None = Field(
        None,
        description="How the action begins, goes on and ends; for all labels or for none.",
        examples=[["A hand is raised.", "The hand moves from side to side.", "The hand sinks."]],
    )
    clips: list[ClipBody]


class TaskBody(Body):
    """A new task in JSON."""

    name: str | None = None
    ttl_s: float | None = Field(None, gt=0, description="Seconds the task lives; none is forever.")
    allow_partial: bool = Field(
        False, description="Leave out clips that cannot be used while every label keeps one."
    )
    inbox: InboxPolicyBody | None = Field(None, description="Which queries it remembers unasked.")
    labels: list[LabelBody]
    descriptions: dict[str, list[str]] | None = Field(
        None, description="The same as each label's own descriptions, in one place."
    )


class Descriptions(Body):
    """The multipart field `descriptions`: the sentences of every label."""

    descriptions: dict[str, list[str]]


class Words(Body):
    """The multipart field `descriptions` of one label."""

    descriptions: list[str]


class QueryBody(Body):
    """Clips to classify, in JSON."""

    clips: list[ClipBody]
    remember: bool | None = Field(
        None, description="Keep the clips in the task's inbox; none leaves it to its policy."
    )
    explain: bool = EXPLAIN


class FieldProblem(BaseModel):
    """What is wrong with one field."""

    field: str = Field(examples=["labels.0.clips"])
    message: str


class ClipProblem(BaseModel):
    """Why one clip cannot be used."""

    index: int = Field(description="Place of the clip in the request, from 0.")
    name: str | None = Field(None, description=FILE_NAME)
    label: str | None = None
    code: str = Field(examples=["clip-too-long"])
    detail: str


class Problem(BaseModel):
    """An error, RFC 9457."""

    type: str = Field(examples=["urn:kshot:problem:too-few-labels"])
    title: str = Field(examples=["Too few labels"])
    status: int = Field(examples=[422])
    detail: str = Field(examples=["The task has 1 label ('wave'); give at least 2."])
    instance: str = Field(description="Id of the request, as in the log and X-Request-Id.")
    code: str = Field(examples=["too-few-labels"])
    retryable: bool = Field(description="The same request may succeed later.")
    revision: int | None = Field(None, description="With 412: the revision that stands.")
    errors: list[FieldProblem] = []
    clips: list[ClipProblem] = []


CONTEXT = Field(
    description="What queries attend to beside themselves: `support` (its clips), `prototype` (the "
    "means of its labels), `self` or `none`.",
    examples=["none"],
)
WARNINGS = "What was wrong with a clip that is used all the same, in sentences."


class LabelView(BaseModel):
    """One label of a task."""

    label: str = Field(examples=["wave"])
    clips: int = Field(description="Support clips.", examples=[5])
    descriptions: tuple[str, ...] = Field(description="Its stages in words.")
    text_source: TextSource


class ClipView(BaseModel):
    """One support clip as it was understood."""

    clip_id: str = Field(description="Stays, whatever becomes of other clips.")
    name: str | None = Field(description=FILE_NAME)
    index: int | None = Field(
        description="Its place in the request that made the task, from 0; null if added later."
    )
    label: str
    duration_s: float | None = Field(
        description="None of pictures, whose rate nobody knows, and of a clip not decoded yet."
    )
    codec: str | None = Field(
        description="Null while the clip is not decoded yet.", examples=["h264"]
    )
    frames_s: tuple[float, ...] = Field(description="When the sampled frames are shown, seconds.")
    distinct: int = Field(description="Different source frames among the sampled ones.")
    warnings: tuple[str, ...] = Field(description=WARNINGS)


class TaskView(BaseModel):
    """A task."""

    id: str = Field(examples=["0d9c4d1c2f6d4c43a8a4f6f2c3d5e6f7"])
    name: str | None
    status: Status
    progress: float = Field(
        ge=0, le=1, description="Share of the work done; decoding and encoding count alike."
    )
    failure: str | None = Field(description="Why the task failed.")
    revision: int = Field(description="Counts up when labels, clips or descriptions change.")
    created_at: str = Field(examples=["2026-01-31T12:00:00Z"])
    expires_at: str | None
    unknown_below: float | None = Field(
        description="The task's own threshold of `nearest`; null is the checkpoint's."
    )
    threshold: float = Field(description="The one that holds.")
    threshold_by: ThresholdBy = WHOSE
    none_of_these: int = Field(description="Queries that were none of the labels.")
    inbox: InboxPolicyBody | None = Field(None, description="Queries it remembers unasked.")
    labels: list[LabelView]
    clips: list[ClipView]
    model: str = Field(examples=["compact"])
    model_revision: str
    trained: bool = Field(description="False: a bare backbone with untrained adapters.")
    context: QueryContext = CONTEXT
    text: TextOrigin | None = Field(description="Text that takes part in scores; null is none.")
    text_reason: str | None = Field(
        description="Why no text takes part, or why a language model's did not come."
    )
    refused_clips: list[ClipProblem] = Field(
        [], description="Left out under allow_partial, or what made the task fail."
    )
    diagnosis: DiagnosisShort | None = Field(None, description="With `?diagnosis=true`.")


class TaskLine(BaseModel):
    """A task in a list; GET /tasks/{id} shows the whole of it."""

    id: str = Field(examples=["0d9c4d1c2f6d4c43a8a4f6f2c3d5e6f7"])
    name: str | None
    status: Status
    revision: int
    created_at: str = Field(examples=["2026-01-31T12:00:00Z"])
    expires_at: str | None
    labels: list[str] = Field(examples=[["wave", "jump"]])
    clips: int = Field(description="Support clips.")
    model_revision: str


class TaskPage(BaseModel):
    """Tasks, newest first."""

    tasks: list[TaskLine]
    next_cursor: str | None = Field(description="Give it as `cursor` to go on; null is the end.")


class Ranked(BaseModel):
    """One label's part in an answer."""

    label: str
    score: float = Field(description="Probability that it is this one, were it one of the labels.")
    video: float = Field(description="How well the frames match the label's clips.")
    text: float | None = Field(description="How well the frames match the label's text.")
    stages: tuple[float, ...] | None = Field(description="The same, stage by stage.")


class ClipResult(BaseModel):
    """What one query clip is, or why it could not be read."""

    clip_index: int
    name: str | None = Field(None, description=FILE_NAME)
    label: str | None = None
    score: float | None = Field(None, description="Probability of `label`, were it of the task.")
    unknown: bool | None = Field(None, description="It looks like none: `nearest` < `threshold`.")
    nearest: float | None = Field(None, description="Cosine with the nearest label's clips.")
    threshold: float | None = None
    query_id: str | None = Field(None, description="In the task's inbox; null is not remembered.")
    margin: float | None = Field(None, description="Score of the first label less the second.")
    ranking: list[Ranked] = []
    frames_s: list[float] = Field([], description="When the sampled frames are shown, seconds.")
    saliency: SaliencyView | None = WHERE
    warnings: list[str] = Field([], description=WARNINGS)
    error: Problem | None = None


class Timing(BaseModel):
    """Where the time went, milliseconds."""

    decode: float
    queue: float
    compute: float


class Classification(BaseModel):
    """The answer to classify."""

    task_id: str
    task_revision: int
    model_revision: str
    context: QueryContext = CONTEXT
    text_source: TextOrigin | None = Field(description="Text that took part; null is none.")
    text_reason: str | None = Field(
        description="Why no text took part, or why a language model's did not come."
    )
    threshold_by: ThresholdBy = WHOSE
    results: list[ClipResult] = Field(description="In the order of the clips.")
    timing_ms: Timing
