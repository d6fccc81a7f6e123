"""What the OpenAPI document says of timelines."""

from typing import Any

from service.http.content import JSON
from service.http.openapi import CLIP_ENCODING, REFERENCE, file_schema
from service.http.timeline.reading import CSV, EVENTS, NUMBERS, VTT
from service.http.timeline.schemas import TimelineBody, TimelineView

BODIES = (TimelineBody,)
TEXT: dict[str, Any] = {"schema": {"type": "string"}}
ANSWER: dict[str, Any] = {
    "model": TimelineView,
    "description": "The spans; as events while they are found, as CSV or as WebVTT by `Accept`.",
    "content": {JSON: {}, EVENTS: TEXT, CSV: TEXT, VTT: TEXT},
}
REQUEST: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "encoding": CLIP_ENCODING,
                "schema": {
                    "type": "object",
                    "required": ["clip"],
                    "additionalProperties": False,
                    "properties": {
                        "clip": file_schema(),
                        **{name: {"type": "number"} for name in NUMBERS},
                        "scores": {"type": "boolean"},
                    },
                },
            },
            JSON: {"schema": {"$ref": REFERENCE.format(model="TimelineBody")}},
        },
    }
}
