"""The forms of a timeline beside JSON: CSV as BORIS has it, WebVTT, and events while it runs."""

import csv
import io
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from http import HTTPStatus

from pydantic import BaseModel

from model.errors import KshotError
from service.http.problems import problem_of
from service.http.timeline.schemas import TimelineView, WindowsView
from service.http.timeline.views import Shown
from service.tasks.timeline.follow import Advanced, Begun, Ended, Event

# "Export aggregated events" of BORIS 9 (src/boris/export_events), without its empty columns.
BORIS = (
    *("Observation id", "Observation date", "Description", "Observation type", "Source"),
    *("Time offset (s)", "Coding duration", "Media duration (s)", "FPS (frame/s)", "Subject"),
    *("Behavior", "Behavioral category", "Behavior type", "Start (s)", "Stop (s)"),
    *("Duration (s)", "Media file name", "Comment start", "Comment stop"),
)


def as_csv(found: TimelineView) -> str:
    """Write a line a span, under the names that BORIS gives columns."""
    text, name = io.StringIO(), found.name or ""
    lines = csv.DictWriter(text, BORIS, restval="", lineterminator="\r\n")
    lines.writeheader()
    for span in found.spans:
        lines.writerow(
            {
                "Observation id": name or found.task_id,
                "Observation type": "Media file",
                "Source": name,
                "Time offset (s)": "0.0",
                "Coding duration": f"{found.duration_s:.3f}",
                "Media duration (s)": f"{found.duration_s:.3f}",
                "Subject": "No focal subject",
                "Behavior": span.label,
                "Behavior type": "STATE",
                "Start (s)": f"{span.start_s:.3f}",
                "Stop (s)": f"{span.end_s:.3f}",
                "Duration (s)": f"{span.end_s - span.start_s:.3f}",
                "Media file name": name,
                "Comment start": f"score {span.score:.3f}, peak at {span.peak_s:.3f} s",
            }
        )
    return text.getvalue()


def as_vtt(found: TimelineView) -> str:
    """Write a cue a span, for a player to show over the video."""
    cues = [
        f"{number}\n{_clock(span.start_s)} --> {_clock(span.end_s)}\n"
        f"{_plain(span.label)} ({span.score:.0%})\n"
        for number, span in enumerate(found.spans, 1)
    ]
    return "\n".join(["WEBVTT\n", *cues])


async def as_events(
    begun: Begun,
    events: AsyncIterator[Event],
    shown: Shown,
    request_id: str,
    failed: Callable[[str], None] = lambda _: None,
) -> AsyncGenerator[str]:
    """Write an event for each thing that has become known; the last is `ended` or `problem`.

    Args:
        begun: The first event.
        events: The others.
        shown: What is shown of the video.
        request_id: Of the request, for a problem to name.
        failed: Is called with the code of the problem where a fault of ours ended it.
    """
    yield _event("begun", shown.begun(begun))
    windows = 0
    try:
        async for event in events:
            match event:
                case Advanced():
                    windows += len(event.windows)
                    for span in shown.spans(event.spans):
                        yield _event("span", span)
                    if shown.with_scores and event.windows:
                        yield _event("windows", WindowsView(windows=shown.windows(event.windows)))
                    yield _event("progress", shown.progress(event, windows))
                case Ended():
                    yield _event("ended", shown.ended(event))
    except KshotError as error:
        problem = problem_of(error, request_id)
        late = problem.status == HTTPStatus.GATEWAY_TIMEOUT  # and was answered until then
        if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR and not late:
            failed(problem.code)
        yield _event("problem", problem)


def _event(name: str, data: BaseModel) -> str:
    return f"event: {name}\ndata: {data.model_dump_json()}\n\n"


def _clock(seconds: float) -> str:
    ms = round(1e3 * seconds)
    return f"{ms // 3_600_000:02d}:{ms // 60_000 % 60:02d}:{ms // 1000 % 60:02d}.{ms % 1000:03d}"


def _plain(text: str) -> str:
    """Escape what WebVTT reads as markup."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
