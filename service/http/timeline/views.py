"""A timeline as the API shows it."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass, field

from model.timeline.segments import Span
from service.engine.runtimes.protocol import ServedModel
from service.http.timeline.schemas import (
    BegunView,
    EndedView,
    ParametersView,
    ProgressView,
    SpanView,
    TimelineView,
    WindowView,
)
from service.tasks.timeline.follow import Advanced, Begun, Ended, Event, ScoredWindow

PLACES = 3  # milliseconds: finer than any picture is shown


@dataclass(slots=True)
class Shown:
    """What is shown of one video.

    Args:
        model: Which followed it.
        name: Of the video's file.
        with_scores: Whether the scores of windows are wanted.
    """

    model: ServedModel
    name: str | None
    with_scores: bool
    labels: list[str] = field(default_factory=list)

    def begun(self, event: Begun) -> BegunView:
        """Show how it is looked at."""
        record, plan = event.record, event.plan
        self.labels = [label.label for label in record.labels]
        return BegunView(
            task_id=record.task_id,
            task_revision=record.revision,
            model_revision=self.model.fingerprint,
            context=self.model.query_context,
            name=self.name,
            codec=event.codec,
            duration_s=event.claimed_s,
            window_s=round(plan.grid.window_s, PLACES),
            stride_s=round(plan.grid.stride_s, PLACES),
            parameters=ParametersView(**asdict(plan.rule)),
        )

    def spans(self, spans: Sequence[Span]) -> list[SpanView]:
        """Show spans."""
        return [
            SpanView(
                start_s=round(span.start_s, PLACES),
                end_s=round(span.end_s, PLACES),
                label=self.labels[span.label],
                score=span.score,
                peak_s=round(span.peak_s, PLACES),
            )
            for span in spans
        ]

    def windows(self, windows: Sequence[ScoredWindow]) -> list[WindowView]:
        """Show the scores of windows."""
        return [
            WindowView(
                start_s=round(window.start_s, PLACES),
                end_s=round(window.end_s, PLACES),
                scores=dict(zip(self.labels, window.scores.probabilities_N, strict=True)),
                nearest=window.scores.nearest,
                unknown=window.unknown,
            )
            for window in windows
        ]

    def progress(self, event: Advanced, windows: int) -> ProgressView:
        """Show how far it is, with so many windows scored."""
        return ProgressView(
            reached_s=round(event.reached_s, PLACES),
            settled_s=round(event.settled_s, PLACES),
            windows=windows,
        )

    def ended(self, event: Ended) -> EndedView:
        """Show what was known at the end."""
        return EndedView(
            duration_s=round(event.duration_s, PLACES),
            windows=event.windows,
            warnings=list(event.warnings),
            took_s=round(event.took_s, PLACES),
        )


async def whole(events: AsyncIterator[Event], shown: Shown) -> TimelineView:
    """Wait for the end, and show all of it."""
    begun, ended = dict[str, object](), dict[str, object]()
    spans, windows = list[SpanView](), list[WindowView]()
    async for event in events:
        match event:
            case Begun():
                begun = shown.begun(event).model_dump()
            case Advanced():
                spans += shown.spans(event.spans)
                windows += shown.windows(event.windows) if shown.with_scores else []
            case Ended():
                ended = shown.ended(event).model_dump()
    scores = windows if shown.with_scores else None
    return TimelineView.model_validate({**begun, **ended, "spans": spans, "scores": scores})
