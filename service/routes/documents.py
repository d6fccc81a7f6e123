"""Parts of the OpenAPI document that FastAPI cannot read off a signature."""

from typing import Any

from service.errors import MEDIA_TYPE
from service.schemas import Problem, QueryBody, TaskBody

Responses = dict[int | str, dict[str, Any]]

MEANINGS = {
    400: "The body cannot be read.",
    404: "No such task.",
    409: "Not now: still getting ready, or changed meanwhile.",
    410: "The task has expired.",
    413: "More bytes than the limit.",
    415: "A content type, container or codec that is not taken.",
    422: "Readable, but it cannot be used.",
    503: "The service cannot at the moment; Retry-After says when.",
    504: "The request took too long.",
}


def problems(*statuses: int) -> Responses:
    """Declare the errors of a route."""
    return {
        status: {
            "description": MEANINGS[status],
            "content": {MEDIA_TYPE: {"schema": Problem.model_json_schema()}},
        }
        for status in statuses
    }


def _file() -> dict[str, Any]:
    return {"type": "string", "format": "binary"}


TASK_REQUEST: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "description": "`support[LABEL]` is a clip of LABEL, repeated; "
                    "`start_s[LABEL]` and `end_s[LABEL]` follow the order of its clips.",
                    "properties": {
                        "support[LABEL]": {"type": "array", "items": _file()},
                        "start_s[LABEL]": {"type": "array", "items": {"type": "number"}},
                        "end_s[LABEL]": {"type": "array", "items": {"type": "number"}},
                        "name": {"type": "string"},
                        "descriptions": {
                            "type": "string",
                            "description": "JSON: three sentences for every label.",
                        },
                        "ttl_s": {"type": "number"},
                        "allow_partial": {"type": "boolean"},
                    },
                }
            },
            "application/json": {"schema": TaskBody.model_json_schema()},
        },
    }
}
QUERY_REQUEST: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["clip"],
                    "properties": {
                        "clip": {"type": "array", "items": _file()},
                        "start_s": {"type": "array", "items": {"type": "number"}},
                        "end_s": {"type": "array", "items": {"type": "number"}},
                    },
                }
            },
            "application/json": {"schema": QueryBody.model_json_schema()},
        },
    }
}
PREFER: dict[str, Any] = {
    "parameters": [
        {
            "name": "Prefer",
            "in": "header",
            "schema": {"type": "string"},
            "example": "wait=5",
            "description": "`wait=N`: seconds to wait for the task to be ready.",
        }
    ]
}
