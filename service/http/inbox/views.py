"""What a task remembers, as the API shows it."""

from collections.abc import Sequence

from service.http.inbox.schemas import InboxView, QueryView, ScoreView
from service.http.views import time_view
from service.stores.inboxes.kept import Remembered
from service.stores.records import TaskRecord


def inbox_view(record: TaskRecord, queries: Sequence[Remembered]) -> InboxView:
    """Show an inbox."""
    return InboxView(
        task_id=record.task_id,
        task_revision=record.revision,
        none_of_these=len(record.none_of_these),
        queries=[_query(query) for query in queries],
    )


def _query(query: Remembered) -> QueryView:
    (label, score), (_, second) = query.ranking[:2]
    clip = query.clip
    return QueryView(
        query_id=query.query_id,
        name=clip.name,
        answered_at=time_view(query.at),
        kept_until=time_view(query.until),
        task_revision=query.revision,
        model_revision=query.model,
        label=label,
        score=score,
        margin=score - second,
        unknown=query.unknown,
        nearest=query.nearest,
        threshold=query.threshold,
        ranking=[ScoreView(label=name, score=value) for name, value in query.ranking],
        duration_s=None if clip.codec in ("pictures", "") else clip.duration_s,
        frames_s=list(clip.frames_s),
        warnings=list(clip.warnings),
    )
