"""What the OpenAPI document says of requests that change a task."""

from typing import Any

from service.http.openapi import (
    CLIP_ENCODING,
    IDEMPOTENCY_KEY,
    PREFER,
    REFERENCE,
    file_schema,
    spans,
    timeout,
)

Extra = dict[str, Any]

IF_MATCH: Extra = {
    "name": "If-Match",
    "in": "header",
    "schema": {"type": "string"},
    "example": '"3"',
    "description": "The ETag of the revision that the change is meant for; without it, whichever "
    "stands.",
}


def headers(*, waits: bool = True, once: bool = False) -> Extra:
    """Describe the headers of a change; `once` where it may be sent again."""
    often = [IF_MATCH, timeout("Milliseconds until the change is made; then 504.")]
    return {
        "parameters": [
            *often,
            *([PREFER] if waits else []),
            *([IDEMPOTENCY_KEY] if once else []),
        ]
    }


def json_request(model: str) -> Extra:
    """Describe a body that is JSON alone."""
    schema = {"$ref": REFERENCE.format(model=model)}
    content = {"application/json": {"schema": schema}}
    return {"requestBody": {"required": True, "content": content}}


def clips_request(model: str, *, described: bool) -> Extra:
    """Describe a body of clips, multipart or JSON."""
    properties: Extra = {
        "clip": {"type": "array", "items": file_schema(), "minItems": 1},
        "start_s": spans(""),
        "end_s": spans(""),
        "allow_partial": {"type": "boolean"},
    }
    if described:
        properties["descriptions"] = {
            "type": "string",
            "description": "JSON: a list with one sentence a stage.",
        }
    form = {
        "encoding": CLIP_ENCODING,
        "schema": {
            "type": "object",
            "required": ["clip"],
            "additionalProperties": False,
            "properties": properties,
        },
    }
    request = json_request(model)
    request["requestBody"]["content"]["multipart/form-data"] = form
    return request
