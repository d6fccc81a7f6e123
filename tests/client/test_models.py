"""The client's models are those of the kept OpenAPI document, field by field."""

import inspect
import json
from collections.abc import Iterator
from types import FunctionType
from typing import Any

import pytest
from pydantic import BaseModel

import kshot_client.operations.changes as changes
import kshot_client.operations.questions as questions
import kshot_client.operations.tasks as tasks
import kshot_client.operations.timelines as timelines
from deploy.openapi import PLACE
from kshot_client import AsyncClient, Client
from kshot_client.models import operations, problems, results
from kshot_client.models import tasks as task_models
from kshot_client.models import timelines as timeline_models
from kshot_client.models.answer import Answer

DOCUMENT = json.loads(PLACE.read_text(encoding="utf-8"))
SCHEMAS = DOCUMENT["components"]["schemas"]
OTHERWISE = {  # names that people read otherwise
    "ClipView": "SupportClip",
    "EventView": "TaskEvent",
    "InboxPolicyBody": "InboxPolicy",
    "CalibrationFacts": "Calibration",
    "QueryView": "InboxQuery",
    "ModelView": "ServedModel",
}
# What the client has no method for: what others than clients of tasks ask.
NOT_OFFERED = {
    *("metrics", "livez", "inferenceLive", "inferenceReady", "inferenceModel"),
}
OFFERED = {
    "createTask": "register",
    "listTasks": "tasks",
    "getTask": "task",
    "changeTask": "change",
    "deleteTask": "delete",
    "diagnoseTask": "diagnose",
    "listInbox": "inbox",
    "readyz": "health",
    "servedModel": "model",
    "watchTask": "watch_task",
    "swapModel": "swap_model",
    **{name: name for name in ("classify", "timeline", "info", "limits", "usage")},
    **{
        name: "".join(f"_{c.lower()}" if c.isupper() else c for c in name)
        for name in (
            *("putLabel", "addClips", "renameLabel", "describeLabel", "removeLabel", "removeClip"),
            *("clipFrames", "queryFrames", "answerQuery", "exportTask", "importTask"),
        )
    },
}
MODELS: dict[str, type[BaseModel]] = {
    name: model
    for module in (operations, problems, results, task_models, timeline_models)
    for name, model in vars(module).items()
    if inspect.isclass(model) and issubclass(model, Answer) and model is not Answer
}


def named(schema: str) -> str:
    """Return what the client calls a schema."""
    return OTHERWISE.get(schema, schema.removesuffix("View"))


def references(schema: object) -> Iterator[str]:
    """Give the names of the schemas that one refers to."""
    if isinstance(schema, dict):
        if "/schemas/" in schema.get("$ref", ""):
            yield schema["$ref"].rpartition("/")[2]
        for inner in schema.values():
            yield from references(inner)
    elif isinstance(schema, list):
        for inner in schema:
            yield from references(inner)


def answered() -> set[str]:
    """Name all schemas that an answer of an operation of the client may have, whole."""
    todo = [
        name
        for operations_of_path in DOCUMENT["paths"].values()
        for operation in operations_of_path.values()
        if operation["operationId"] in OFFERED
        for name in references(operation["responses"])
    ] + ["BegunView", "WindowsView", "ProgressView", "EndedView", "EventView"]
    found: set[str] = set()
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += references(SCHEMAS[name])
    return found


def plain(schema: dict[str, Any]) -> object:
    """Reduce a schema to what a client cares for: names and types, no bounds and no words."""
    if "$ref" in schema:
        return named(schema["$ref"].rpartition("/")[2])
    if "anyOf" in schema:
        return {"any": sorted(str(plain(each)) for each in schema["anyOf"])}
    match schema.get("type"):
        case "array":
            return ["list", plain(schema["items"])]
        case "object":
            return {"by name": plain(schema["additionalProperties"])}
        case kind:
            return kind


def test_every_operation_of_the_service_is_offered_or_left_out_on_purpose() -> None:
    ids = {
        operation["operationId"]
        for operations_of_path in DOCUMENT["paths"].values()
        for operation in operations_of_path.values()
    }
    assert ids == OFFERED.keys() | NOT_OFFERED
    for client in (Client, AsyncClient):
        assert not [name for name in OFFERED.values() if not hasattr(client, name)]


def test_both_clients_have_the_same_methods() -> None:
    public = [{n for n in vars(c) if not n.startswith("_")} for c in (Client, AsyncClient)]
    assert public[0] == public[1]


def test_every_answer_has_a_model_and_no_model_is_of_nothing() -> None:
    assert {named(schema) for schema in answered()} == MODELS.keys()


@pytest.mark.parametrize("schema", sorted(answered()))
def test_a_model_has_the_fields_of_its_schema(schema: str) -> None:
    theirs = SCHEMAS[schema]
    ours = MODELS[named(schema)].model_json_schema(mode="serialization")
    assert {n: plain(p) for n, p in ours["properties"].items()} == {
        n: plain(p) for n, p in theirs["properties"].items()
    }
    assert set(ours.get("required", ())) == set(theirs.get("required", ()))


def test_an_answer_of_a_newer_service_is_read() -> None:
    line = operations.Health.model_validate({"ok": True, "parts": {}, "moon": "full"})
    assert line.model_dump()["moon"] == "full"


def form_fields(path: str, verb: str) -> set[str]:
    body = DOCUMENT["paths"][path][verb]["requestBody"]["content"]["multipart/form-data"]
    return set(body["schema"]["properties"])


@pytest.mark.parametrize(
    ("path", "verb", "flow", "otherwise"),
    [
        ("/v1/tasks", "post", tasks.register, {"label", "clip"}),
        ("/v1/tasks/{task_id}/classify", "post", questions.classify, {"clip"}),
        ("/v1/tasks/{task_id}/labels/{label}", "put", changes.put_label, {"clip"}),
        ("/v1/tasks/{task_id}/labels/{label}/clips", "post", changes.add_clips, {"clip"}),
    ],
)
def test_every_field_of_a_form_can_be_given(
    path: str, verb: str, flow: FunctionType, otherwise: set[str]
) -> None:
    """Beside what `Clip` says: the file, its label, and its span."""
    given = set(inspect.signature(flow).parameters)
    assert form_fields(path, verb) - otherwise - {"start_s", "end_s"} <= given


def test_every_option_of_a_timeline_is_named() -> None:
    said = timelines.timeline.__doc__ or ""
    names = form_fields("/v1/tasks/{task_id}/timeline", "post") - {"clip"}
    assert not [name for name in names if f"`{name}`" not in said and f"{name}:" not in said]
