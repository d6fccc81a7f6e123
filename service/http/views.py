"""Records and scores as the API shows them."""

import importlib.metadata
import math
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

import torch

from model.config import QueryContext
from model.episode import MatchScores
from model.media.sampling import Clip
from service.engine.engine import ServedModel
from service.engine.passes.choice import Choice
from service.errors import ClipFault
from service.http.schemas import (
    ClipProblem,
    ClipResult,
    ClipView,
    LabelView,
    Ranked,
    RuntimeView,
    Status,
    TaskView,
)
from service.stores.records import TaskRecord
from service.tasks.supports import Preparation


def task_view(
    record: TaskRecord,
    model: ServedModel,
    *,
    context: QueryContext,
    text_reason: str | None,
    preparation: Preparation | None,
    faults: Sequence[ClipFault] = (),
) -> TaskView:
    """Show a task."""
    shots = Counter(clip.label for clip in record.clips)
    names = [label.label for label in record.labels]
    return TaskView(
        id=record.task_id,
        name=record.name,
        status=_status(preparation),
        progress=1.0 if preparation is None else preparation.done / preparation.clips,
        revision=record.revision,
        created_at=_time(record.created_at),
        expires_at=None if record.expires_at is None else _time(record.expires_at),
        labels=[
            LabelView(
                label=label.label,
                clips=shots[place],
                descriptions=label.stages,
                text_source=label.text_source,
            )
            for place, label in enumerate(record.labels)
        ],
        clips=[
            ClipView(
                clip_id=clip.clip_id,
                label=names[clip.label],
                duration_s=clip.duration_s,
                codec=clip.codec,
                frames_s=clip.frames_s,
                distinct=clip.distinct,
            )
            for clip in record.clips
        ],
        model=model.name,
        model_revision=model.fingerprint,
        trained=model.trained,
        context=context,
        text=None if text_reason else record.labels[0].text_source,
        text_reason=text_reason,
        refused_clips=[
            ClipProblem(index=f.index, label=f.label, code=f.error.code, detail=str(f.error))
            for f in faults
        ],
    )


def clip_result(
    index: int, clip: Clip, labels: Sequence[str], scores: MatchScores, temperature: float
) -> ClipResult:
    """Show what one query clip is."""
    shares = softmax(scores.logits_N, temperature)
    ranking = [
        Ranked(
            label=label,
            score=shares[place],
            video=scores.video_N[place],
            text=None if scores.text_N is None else scores.text_N[place],
            stages=None if scores.stages_NA is None else _three(scores.stages_NA[place]),
        )
        for place, label in enumerate(labels)
    ]
    ranking.sort(key=lambda ranked: -ranked.score)
    first, second = ranking[:2]
    return ClipResult(
        clip_index=index,
        label=first.label,
        score=first.score,
        margin=first.score - second.score,
        ranking=ranking,
        frames_s=list(clip.times_s),
    )


def softmax(logits: Sequence[float], temperature: float) -> list[float]:
    """Return shares in [0, 1] that sum to 1."""
    most = max(logits)
    powers = [math.exp((logit - most) / temperature) for logit in logits]
    total = math.fsum(powers)
    return [power / total for power in powers]


def _status(preparation: Preparation | None) -> Status:
    if preparation is None:
        return "ready"
    return "failed" if preparation.failed else "processing"


def _three(stages: Sequence[float]) -> tuple[float, float, float]:
    start, middle, end = stages
    return start, middle, end


def _time(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds")


def runtime_view(choice: Choice) -> RuntimeView:
    """Say what runs the model, and why it was chosen."""
    runtime = choice.runtime
    packages = ("torch", "onnxruntime", "onnxruntime-gpu")
    return RuntimeView(
        kind=runtime.kind,
        precision=runtime.precision,
        provider=runtime.provider,
        device=str(runtime.device),
        threads=torch.get_num_threads(),
        buckets=runtime.buckets,
        why=choice.why,
        measured_clips_s=dict(choice.clips_s),
        refused=dict(choice.refused),
        versions={name: found for name in packages if (found := version_of(name))},
    )


def version_of(package: str) -> str | None:
    """Look up what is installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
