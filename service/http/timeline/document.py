"""What the OpenAPI document says of timelines."""

from typing import Any

from service.http.content import JSON
from service.http.openapi import file_schema, form_or_json
from service.http.timeline.reading import CSV, EVENTS, NUMBERS, VTT
from service.http.timeline.schemas import (
    BegunView,
    EndedView,
    ProgressView,
    TimelineBody,
    TimelineView,
    WindowsView,
)

BODIES = (TimelineBody,)
DATA = (BegunView, WindowsView, ProgressView, EndedView)  # of events; that of `span` is in answers
TEXT: dict[str, Any] = {"schema": {"type": "string"}}
ANSWER: dict[str, Any] = {
    "model": TimelineView,
    "description": "The spans; as events while they are found, as CSV or as WebVTT by `Accept`.",
    "content": {JSON: {}, EVENTS: TEXT, CSV: TEXT, VTT: TEXT},
}
REQUEST = form_or_json(
    "TimelineBody",
    {
        "clip": file_schema(),
        **{name: {"type": "number"} for name in NUMBERS},
        "scores": {"type": "boolean"},
    },
)
