"""Parts of the OpenAPI document that FastAPI cannot read off a signature."""

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from service.http.access.scopes import SCOPES
from service.http.document.examples import illustrate
from service.http.problems import MEDIA_TYPE, TIMEOUT_HEADER
from service.http.quota.document import FIELDS, tell_of_quotas
from service.http.schemas import Body, Problem, QueryBody, TaskBody
from service.limits import Limits

OF_64 = "[A-Za-z0-9+/]"
BASE64 = {"pattern": f"^({OF_64}{{4}})*({OF_64}{{4}}|{OF_64}{{3}}=|{OF_64}{{2}}==)$"}
REFERENCE = "#/components/schemas/{model}"
Responses = dict[int | str, dict[str, Any]]
Shape = tuple[Any, JsonSchemaMode]  # a model, and which of its two schemas is meant

MEANINGS = {
    400: "The body cannot be read.",
    401: "No valid API key, where the service asks for one.",
    403: "The key lacks the scope of this route.",
    404: "No such task.",
    406: "None of the forms that `Accept` names.",
    409: "Not now: still getting ready, or changed meanwhile; or its tenant's quota is full.",
    408: "The body came too slowly.",
    410: "The task has expired, or what an Idempotency-Key made is gone.",
    412: "The task is at another revision than If-Match says; `revision` and ETag say at which.",
    413: "More bytes than the limit, or more than its tenant may ask for in a minute.",
    415: "A content type, container or codec that is not taken.",
    422: "Readable, but it cannot be used.",
    429: "The minute's quota is used up, or this client has more work here than its share while "
    "others wait; see Retry-After.",
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


def file_schema() -> dict[str, Any]:
    """Describe a file in the words of OpenAPI 3.0, which generators read, and of 3.1."""
    return {"type": "string", "format": "binary", "contentMediaType": "application/octet-stream"}


def spans(of: str) -> dict[str, Any]:
    """Describe where clips of a form start, or end."""
    return {
        "type": "array",
        "items": {"type": "number", "minimum": 0},
        "description": f"Seconds; once a clip{of}, in the same order, empty where it has none.",
    }


def form_or_json(
    model: str, properties: dict[str, Any], *, required: Sequence[str] = ("clip",), **more: object
) -> dict[str, Any]:
    """Describe a body that is multipart with files, or JSON.

    Args:
        model: Name of the schema of the JSON.
        properties: Fields of the form.
        required: Those that a form needs.
        more: What else the schema of the form says.
    """
    form: dict[str, Any] = {"type": "object", "properties": properties} | more
    form |= {"additionalProperties": False} | ({"required": [*required]} if required else {})
    return {
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {
                    "encoding": {"clip": {"contentType": "application/octet-stream"}},
                    "schema": form,
                },
                "application/json": {"schema": {"$ref": REFERENCE.format(model=model)}},
            },
        }
    }


TASK_REQUEST = form_or_json(
    "TaskBody",
    {
        "label": {"type": "array", "items": {"type": "string"}},
        "clip": {"type": "array", "items": file_schema()},
        "start_s": spans(""),
        "end_s": spans(""),
        "name": {"type": "string"},
        "descriptions": {
            "type": "string",
            "description": "JSON: for every label, one sentence a stage.",
        },
        "ttl_s": {"type": "number"},
        "allow_partial": {"type": "boolean"},
        "inbox": {
            "type": "string",
            "description": "JSON: which queries it remembers unasked, such as "
            '{"keep": 50, "below": 0.6}.',
        },
    },
    required=(),
    description="`label` and `clip` are repeated in step: the first label is that of the first "
    "clip. By hand, `support[LABEL]` is shorter: a clip of LABEL, repeated, whose "
    "`start_s[LABEL]` and `end_s[LABEL]` follow the order of its clips. A form has one or the "
    "other.",
    patternProperties={
        r"^support\[.+\]$": {"type": "array", "items": file_schema()},
        r"^(start|end)_s\[.+\]$": spans(" of the label"),
    },
)
QUERY_REQUEST = form_or_json(
    "QueryBody",
    {
        "clip": {"type": "array", "items": file_schema(), "minItems": 1},
        "start_s": spans(""),
        "end_s": spans(""),
        "remember": {"type": "boolean"},
        "explain": {"type": "boolean", "default": False},
    },
)
PREFER: dict[str, Any] = {
    "name": "Prefer",
    "in": "header",
    "schema": {"type": "string"},
    "example": "wait=5",
    "description": "`wait=N`: seconds to wait for the task to be ready.",
}

IDEMPOTENCY_KEY: dict[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "schema": {"type": "string", "pattern": '^("[!#-~]{1,255}"|[!#-~]{1,255})$'},
    "example": '"8e03978e-40d5-43dd-bc93-6894a57f9324"',
    "description": "Drawn by the client for this request; sent again with it, it gets the first "
    "answer, and nothing is made twice.",
}


def timeout(description: str) -> dict[str, Any]:
    """Describe the header that sets a deadline."""
    return {
        "name": TIMEOUT_HEADER,
        "in": "header",
        "schema": {"type": "integer", "minimum": 1},
        "example": 5000,
        "description": description,
    }


CLASSIFY_HEADERS: dict[str, Any] = {
    "parameters": [PREFER, timeout("Milliseconds the request may take; then 504.")]
}
REGISTER_HEADERS: dict[str, Any] = {
    "parameters": [
        PREFER,
        timeout("Milliseconds for receiving and decoding; then 504."),
        IDEMPOTENCY_KEY,
    ]
}


def install(
    app: FastAPI,
    limits: Limits,
    bodies: Sequence[type[Body]],
    answers: Sequence[type[BaseModel]] = (),
) -> None:
    """Add to the document what FastAPI cannot know.

    Args:
        app: The application.
        limits: What a request may be.
        bodies: Of requests, which the routes read themselves.
        answers: What no route returns as it is, such as the data of events.
    """
    made = app.openapi
    shapes: list[Shape] = [(answer, "serialization") for answer in (Problem, *answers)]
    shapes += [(body, "validation") for body in (TaskBody, QueryBody, *bodies)]

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _completed(made(), limits, shapes)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _completed(document: dict[str, Any], limits: Limits, shapes: Sequence[Shape]) -> dict[str, Any]:
    _, ours = models_json_schema(shapes, ref_template=REFERENCE)
    _bound(ours["$defs"], limits)
    schemas = document["components"]["schemas"]
    document["components"]["schemas"] = {**ours["$defs"], **schemas}
    for shown in schemas["Limits"]["properties"].values():
        if pair := shown.pop("prefixItems", None):  # of OpenAPI 3.1, which few generators read
            shown["items"] = pair[0]
    for unused in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(unused, None)
    for operations in document["paths"].values():
        for operation in operations.values():
            illustrate(operation, limits)
            tell_of_quotas(operation)
            answer = operation["responses"].get("422", {})
            if "HTTPValidationError" in str(answer):  # replaced by our own shape everywhere
                del operation["responses"]["422"]
            if scope := SCOPES.get(operation["operationId"]):
                operation["security"] = [{}, {"key": []}]  # a service without keys asks for none
                operation["x-scope"] = scope
                operation["responses"] |= {str(n): one for n, one in problems(401, 403).items()}
    document["components"]["headers"] = FIELDS
    document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    return document


def _bound(schemas: dict[str, Any], limits: Limits) -> None:
    """Write the limits into the schemas of JSON bodies."""
    task = schemas["TaskBody"]["properties"]
    task["labels"] |= {"minItems": limits.labels[0], "maxItems": limits.labels[1]}
    label = schemas["LabelBody"]["properties"]
    label["label"] |= {"minLength": 1, "maxLength": limits.label_chars}
    label["clips"] |= {"minItems": limits.shots[0], "maxItems": limits.shots[1]}
    schemas["ClipBody"] = _either(schemas["ClipBody"], limits)
    schemas["QueryBody"]["properties"]["clips"] |= {"minItems": 1, "maxItems": limits.query_clips}


def _either(clip: dict[str, Any], limits: Limits) -> dict[str, Any]:
    """Describe a clip as one of two objects, each whole, as generators of clients need them."""
    own = clip.pop("properties")
    file, frames = (own[name].pop("anyOf")[0] | own[name] for name in ("video", "frames"))
    frames |= {"minItems": limits.pictures[0], "maxItems": limits.pictures[1]}
    del file["default"], frames["default"]
    frames["items"] |= BASE64
    none = {"type": "null"}
    either = {
        "VideoClip": {"video": file | BASE64, "frames": none},
        "PicturesClip": {"frames": frames, "video": none},
    }
    return {
        "title": clip["title"],
        "description": clip["description"],
        "oneOf": [
            clip | {"title": title, "required": [*given][:1], "properties": own | given}
            for title, given in either.items()
        ],
    }
