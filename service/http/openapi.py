"""Parts of the OpenAPI document that FastAPI cannot read off a signature."""

from typing import Any

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from service.http.deadlines import HEADER
from service.http.problems import MEDIA_TYPE
from service.http.schemas import Problem, QueryBody, TaskBody

REFERENCE = "#/components/schemas/{model}"
Responses = dict[int | str, dict[str, Any]]

MEANINGS = {
    400: "The body cannot be read.",
    404: "No such task.",
    409: "Not now: still getting ready, or changed meanwhile.",
    408: "The body came too slowly.",
    410: "The task has expired.",
    413: "More bytes than the limit.",
    415: "A content type, container or codec that is not taken.",
    422: "Readable, but it cannot be used.",
    429: "This client has more work here than its share, and others wait too; see Retry-After.",
    503: "The service cannot at the moment, or not in time; Retry-After says when.",
    504: "The request took too long.",
}


def problems(*statuses: int) -> Responses:
    """Declare the errors of a route."""
    return {
        status: {
            "description": MEANINGS[status],
            "content": {MEDIA_TYPE: {"schema": {"$ref": REFERENCE.format(model="Problem")}}},
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
            "application/json": {"schema": {"$ref": REFERENCE.format(model="TaskBody")}},
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
            "application/json": {"schema": {"$ref": REFERENCE.format(model="QueryBody")}},
        },
    }
}
PREFER: dict[str, Any] = {
    "name": "Prefer",
    "in": "header",
    "schema": {"type": "string"},
    "example": "wait=5",
    "description": "`wait=N`: seconds to wait for the task to be ready.",
}


def _timeout(description: str) -> dict[str, Any]:
    return {
        "name": HEADER,
        "in": "header",
        "schema": {"type": "integer", "minimum": 1},
        "example": 5000,
        "description": description,
    }


CLASSIFY_HEADERS: dict[str, Any] = {
    "parameters": [PREFER, _timeout("Milliseconds the request may take; then 504.")]
}
REGISTER_HEADERS: dict[str, Any] = {
    "parameters": [PREFER, _timeout("Milliseconds for receiving and decoding; then 504.")]
}


def install(app: FastAPI) -> None:
    """Let the document have the bodies that are read by hand, and the errors as they are."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _completed(made())
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _completed(document: dict[str, Any]) -> dict[str, Any]:
    _, ours = models_json_schema(
        [(TaskBody, "validation"), (QueryBody, "validation"), (Problem, "serialization")],
        ref_template=REFERENCE,
    )
    schemas = document["components"]["schemas"]
    document["components"]["schemas"] = {**ours["$defs"], **schemas}
    for unused in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(unused, None)
    for operations in document["paths"].values():
        for operation in operations.values():
            answer = operation["responses"].get("422", {})
            if "HTTPValidationError" in str(answer):  # replaced by our own shape everywhere
                del operation["responses"]["422"]
    return document
