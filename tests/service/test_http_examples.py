"""Each route has examples, and they are bodies that it takes or gives."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.routing import APIRoute
from pydantic import BaseModel, TypeAdapter

from service.app import ROUTERS, create_app
from service.http.content import JSON
from service.http.document.examples import ANSWERS, PARAMETERS, REQUESTS
from service.http.routes import inference
from service.http.schemas import Body
from service.http.timeline.schemas import TimelineView
from service.settings import Settings

DOCUMENT = create_app(Settings()).openapi()
OPERATIONS = {
    operation["operationId"]: operation
    for operations in DOCUMENT["paths"].values()
    for operation in operations.values()
}
PICTURES = {"image/jpeg", "application/zip"}  # which no document can show


def models(kind: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """Give a model and all that inherit from it."""
    yield kind
    for one in kind.__subclasses__():
        yield from models(one)


BODIES = {model.__name__: model for model in models(Body)}
MODELS = {
    route.operation_id: route.response_model
    for router in (*ROUTERS, inference.router)
    for route in router.routes
    if isinstance(route, APIRoute) and route.response_model is not None
} | {"timeline": TimelineView}


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_body_and_parameter_of_a_route_has_an_example(name: str) -> None:
    operation = OPERATIONS[name]
    content = operation.get("requestBody", {}).get("content", {})
    if JSON in content:
        assert content[JSON]["example"] == REQUESTS[name]
    for status, answer in operation["responses"].items():
        for kind, shown in answer.get("content", {}).items():
            assert status >= "300" or kind in PICTURES or "example" in shown, (status, kind)
    assert not [p["name"] for p in operation.get("parameters", ()) if "example" not in p]


@pytest.mark.parametrize("name", REQUESTS)
def test_an_example_of_a_request_is_read_by_its_model(name: str) -> None:
    schema = OPERATIONS[name]["requestBody"]["content"][JSON]["schema"]["$ref"]
    BODIES[schema.rpartition("/")[2]].model_validate_json(json.dumps(REQUESTS[name]))


@pytest.mark.parametrize("name", MODELS)
def test_an_example_of_an_answer_is_one_of_its_model(name: str) -> None:
    """With every field that is always there, and no other."""
    adapter: TypeAdapter[Any] = TypeAdapter(MODELS[name])
    shown = OPERATIONS[name]["responses"]
    example = next(shown[status] for status in ("200", "201", "202") if status in shown)
    given = example["content"][JSON]["example"]
    assert adapter.dump_python(adapter.validate_python(given), mode="json") == given


def test_no_example_is_of_nothing() -> None:
    named = {
        p["name"] for operation in OPERATIONS.values() for p in operation.get("parameters", ())
    }
    assert set(PARAMETERS) <= named
    assert set(REQUESTS) | set(ANSWERS) <= set(OPERATIONS)
