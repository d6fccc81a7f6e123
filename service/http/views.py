"""What use cases return, as the API shows it."""

import importlib.metadata
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import torch

from service.engine.passes.choice import Choice
from service.engine.runtimes.protocol import ServedModel
from service.http.explained.views import saliency_view
from service.http.inbox.policy import InboxPolicyBody
from service.http.problems import problem_of
from service.http.reports import RuntimeView
from service.http.schemas import (
    Classification,
    ClipProblem,
    ClipResult,
    ClipView,
    LabelView,
    Ranked,
    TaskLine,
    TaskView,
    TextOrigin,
    Timing,
)
from service.stores.records import TaskRecord
from service.tasks.classify import ClipAnswer, TaskAnswer
from service.tasks.encoding import Preparation
from service.tasks.events.standing import progress_of, status_of


def task_view(
    record: TaskRecord,
    model: ServedModel,
    *,
    with_text: bool,
    text_reason: str | None,
    preparation: Preparation | None,
) -> TaskView:
    """Show a task."""
    return TaskView(
        id=record.task_id,
        name=record.name,
        status=status_of(record, preparation),
        progress=progress_of(record, preparation),
        failure=record.failure,
        revision=record.revision,
        created_at=time_view(record.created_at),
        expires_at=None if record.expires_at is None else time_view(record.expires_at),
        unknown_below=record.unknown_below,
        **_threshold(record, model, with_text=with_text),
        inbox=_inbox(record),
        labels=_labels(record),
        clips=_clips(record),
        model=model.name,
        model_revision=model.fingerprint,
        trained=model.trained,
        context=model.query_context,
        text=_origin(record) if with_text else None,
        text_reason=text_reason,
        refused_clips=[ClipProblem(**asdict(clip)) for clip in record.refused],
    )


def task_line(
    record: TaskRecord, model: ServedModel, *, preparation: Preparation | None
) -> TaskLine:
    """Show a task in a list."""
    return TaskLine(
        id=record.task_id,
        name=record.name,
        status=status_of(record, preparation),
        revision=record.revision,
        created_at=time_view(record.created_at),
        expires_at=None if record.expires_at is None else time_view(record.expires_at),
        labels=[label.label for label in record.labels],
        clips=len(record.clips),
        model_revision=model.fingerprint,
    )


def classification(answer: TaskAnswer, model: ServedModel, request_id: str) -> Classification:
    """Show what clips are; the problem of a clip that could not be read names the request."""
    record = answer.record
    labels = [label.label for label in record.labels]
    results = [_clip_result(each, labels, answer.threshold.value) for each in answer.clips]
    results += [
        ClipResult(
            clip_index=fault.index, name=fault.name, error=problem_of(fault.error, request_id)
        )
        for fault in answer.faults
    ]
    return Classification(
        task_id=record.task_id,
        task_revision=record.revision,
        model_revision=model.fingerprint,
        context=model.query_context,
        text_source=_origin(record) if answer.with_text else None,
        text_reason=answer.text_reason,
        threshold_by=answer.threshold.by,
        results=sorted(results, key=lambda result: result.clip_index),
        timing_ms=Timing(
            decode=round(answer.decode_ms, 3),
            queue=round(answer.queue_ms, 3),
            compute=round(answer.compute_ms, 3),
        ),
    )


def _clip_result(answer: ClipAnswer, labels: Sequence[str], threshold: float) -> ClipResult:
    scores = answer.scores
    ranking = [
        Ranked(
            label=label,
            score=answer.probabilities_N[place],
            video=scores.video_N[place],
            text=None if scores.text_N is None else scores.text_N[place],
            stages=None if scores.stages_NA is None else tuple(scores.stages_NA[place]),
        )
        for place, label in enumerate(labels)
    ]
    ranking.sort(key=lambda ranked: -ranked.score)
    first, second = ranking[:2]
    explained = answer.explained
    missing = [] if explained is None or explained.reason is None else [explained.reason]
    return ClipResult(
        clip_index=answer.index,
        name=answer.name,
        label=first.label,
        score=first.score,
        unknown=answer.unknown,
        nearest=scores.nearest,
        threshold=threshold,
        margin=first.score - second.score,
        ranking=ranking,
        frames_s=list(answer.clip.times_s),
        saliency=None if explained is None else saliency_view(explained, first.label),
        warnings=[*answer.clip.warnings, *missing],
    )


def _origin(record: TaskRecord) -> TextOrigin:
    """Say whose the words of a task are."""
    sources = {label.text_source for label in record.labels}
    return sources.pop() if len(sources) == 1 else "mixed"


def _labels(record: TaskRecord) -> list[LabelView]:
    shots = Counter(clip.label for clip in record.clips)
    return [
        LabelView(
            label=label.label,
            clips=shots[place],
            descriptions=label.stages,
            text_source=label.text_source,
        )
        for place, label in enumerate(record.labels)
    ]


def _clips(record: TaskRecord) -> list[ClipView]:
    return [
        ClipView(
            clip_id=clip.clip_id,
            name=clip.name,
            index=clip.index,
            label=record.labels[clip.label].label,
            duration_s=None if clip.codec in ("pictures", "") else clip.duration_s,
            codec=clip.codec or None,
            frames_s=clip.frames_s,
            distinct=clip.distinct,
            warnings=clip.warnings,
        )
        for clip in record.clips
    ]


def _inbox(record: TaskRecord) -> InboxPolicyBody | None:
    if (policy := record.inbox) is None:
        return None
    return InboxPolicyBody(keep=policy.keep, below=policy.below)


def _threshold(record: TaskRecord, model: ServedModel, *, with_text: bool) -> dict[str, Any]:
    """Say below which `nearest` a query is unknown, and whose word that is."""
    shots = Counter(clip.label for clip in record.clips)
    usual = model.calibration.at([*shots.values()] or [1], with_text=with_text).threshold
    value, by = record.threshold(usual, model.fingerprint)
    return {"threshold": value, "threshold_by": by, "none_of_these": len(record.none_of_these)}


def time_view(unix_s: float) -> str:
    """Show a time."""
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
