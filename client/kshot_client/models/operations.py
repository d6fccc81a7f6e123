"""What the service says about itself."""

from pydantic import Field

from kshot_client.models.answer import Answer


class Fit(Answer):
    """What a row was fitted on, and its error there."""

    ways: list[int]
    episodes: int
    ece_before: float
    ece: float
    nll_before: float
    nll: float
    auroc: float | None = None
    known_refused: float


class ShotRow(Answer):
    """What holds for tasks of so many clips a label."""

    shots: int
    scale: float
    threshold: float
    fit: Fit | None = None


class Calibration(Answer):
    """A calibration without its long vector, as it is shown."""

    source: str
    centres_scores: bool = False
    video: list[ShotRow]
    text: list[ShotRow]


class ServedModel(Answer):
    """What answers."""

    name: str
    fingerprint: str
    trained: bool
    text: bool
    frames: int
    size: int
    squash: int | None
    query_context: str
    backbone: str
    calibration: Calibration


class Runtime(Answer):
    """What runs the model, and why."""

    kind: str
    precision: str
    provider: str
    device: str
    threads: int
    buckets: list[int]
    why: str
    measured_clips_s: dict[str, float]
    refused: dict[str, str]
    versions: dict[str, str]


class Info(Answer):
    """What runs here."""

    version: str
    model: ServedModel
    runtime: Runtime
    decoder: dict[str, str]
    store: str
    descriptions: bool


class Limits(Answer):
    """What a request may be; pairs are the least and the most."""

    request_bytes: int
    upload_bytes_s: int
    upload_patience_s: float
    clip_bytes: int
    clip_base64_bytes: int
    clip_duration_s: list[float]
    timeline_s: float
    picture_pixels: int
    clip_frames: int
    clip_streams: int
    containers: list[str]
    codecs: list[str]
    pictures: list[int]
    labels: list[int]
    shots: list[int]
    support_clips: int
    query_clips: int
    explained_clips: int
    label_chars: int
    name_chars: int
    stages: int
    stage_chars: int
    ttl_s: float
    stored_upload_bytes: int
    wait_s: float
    deadline_s: float
    max_deadline_s: float
    timeline_deadline_s: float


class Quota(Answer):
    """How much of a quota is used."""

    limit: int | None
    used: int
    left: int | None
    reset_s: float | None


class SecondsQuota(Answer):
    """The same of seconds."""

    limit: float | None
    used: float
    left: float | None
    reset_s: float | None


class Usage(Answer):
    """What the tenant of the key uses of its quotas; null is without a limit."""

    tasks: Quota
    bytes: Quota
    clip_seconds: SecondsQuota
    frames: Quota
    window_s: float


class Health(Answer):
    """Whether the parts do their work."""

    ok: bool
    degraded: bool = False
    parts: dict[str, bool]
    reasons: dict[str, str] = Field(default_factory=dict)


class Swap(Answer):
    """How far a checkpoint is on its way into the place of another."""

    checkpoint: str
    state: str
    failure: str | None
    model_revision: str | None
    tasks: int
    encoded: int
    left: int
    begun_at: str
    ended_at: str | None


class Served(Answer):
    """Which model answers for new tasks, and what is on its way into its place."""

    model: str
    model_revision: str
    allowed: list[str]
    swap: Swap | None
