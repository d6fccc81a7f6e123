"""Every error has its status, its own code and the one shape, on every path."""

import importlib
import json
import pkgutil
import re
import socket
import time

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

import service
from deploy.readme_tables import ROOT, block, home
from model.errors import EpisodeError, KshotError
from service.errors import DescriptionUnavailableError
from service.http import problems as errors
from service.http import statuses
from service.http.connection import RequestLog
from service.metrics.meters import Meters
from service.settings import Settings
from tests.serving import moving_clip, problem, register, serving


def block_of(name: str) -> str:
    found = block(name).search(home(name).read_text(encoding="utf-8"))
    assert found
    return str(found[2])


def subclasses(kind: type[KshotError]) -> set[type[KshotError]]:
    return {kind}.union(*(subclasses(child) for child in kind.__subclasses__()))


def test_every_error_has_a_status_and_its_own_code() -> None:
    for module in pkgutil.walk_packages(service.__path__, "service."):
        if not module.name.endswith(("__main__", ".worker")):
            importlib.import_module(module.name)
    ours = {kind for kind in subclasses(KshotError) if not kind.__module__.startswith("tests")}
    served = {kind for kind in ours if kind.__module__.startswith(("model.", "service."))}
    assert served == set(statuses.STATUS)
    codes = [kind.code for kind in served]
    assert len(set(codes)) == len(codes)


def test_every_code_in_the_table_can_be_raised_to_a_client_and_no_other() -> None:
    """Both ways: what serves raises each that is answered, and each of the others has a reason."""
    rooms = ("service", "model")
    sources = [
        path.read_text(encoding="utf-8")
        for room in rooms
        for path in (ROOT / room).rglob("*.py")
        if path.name != "statuses.py"
    ]
    raised = set(re.findall(r"(?<!class )\b(\w+Error)\(", "\n".join(sources)))
    raised |= {f.__name__ for f in errors.FAULTS.values()}  # of pydantic's faults, by their type
    answered = {kind for kind in statuses.STATUS if kind not in statuses.UNANSWERED}
    assert {kind.__name__ for kind in answered} <= raised
    assert set(statuses.STATUS) >= statuses.UNANSWERED
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", block_of("problems"), re.MULTILINE)
    table = {(int(status), code) for status, row in rows for code in re.findall(r"`(.+?)`", row)}
    routes = set(statuses.ROUTE_CODES.items())
    assert table == {(statuses.STATUS[kind], kind.code) for kind in answered} | routes


def test_what_no_client_should_get_is_an_internal_error() -> None:
    for kind in (EpisodeError, DescriptionUnavailableError):
        shown = errors.problem_of(kind("A secret of the operator's."), "id")
        assert (shown.status, shown.code) == (500, "internal-error")
        assert "secret" not in shown.detail


def test_what_is_no_http_is_a_problem(client: httpx.Client) -> None:
    refused = client.get("/v1/info", headers={"prefer": b"\x7f"})
    problem(refused, 400, "malformed-request")
    assert refused.headers["connection"] == "close"
    assert client.get("/v1/info").status_code == 200


@pytest.mark.parametrize(
    "path",
    ["/page/", "/page/nothing.js", "/nothing", "/v1", "/v1/tasks/", "/v2/tasks", "/tasks/a/b"],
)
def test_an_unknown_route_is_a_problem(client: httpx.Client, path: str) -> None:
    refused = problem(client.get(path), 404, "route-not-found")
    assert path in refused["detail"]


@pytest.mark.parametrize(
    ("verb", "path", "allowed"),
    [
        ("PUT", "/tasks", ""),
        ("PATCH", "/v1/limits", "GET"),
        ("GET", "/v1/tasks/abc/classify", "POST"),
        ("DELETE", "/livez", "GET"),
    ],
)
def test_a_wrong_verb_is_a_problem(
    client: httpx.Client, verb: str, path: str, allowed: str
) -> None:
    answer = client.request(verb, path)
    assert verb in problem(answer, 405, "method-not-allowed")["detail"]
    assert allowed in answer.headers["allow"]


def test_the_client_may_name_its_request(client: httpx.Client) -> None:
    answer = client.get("/nothing", headers={"x-request-id": "my-request.1"})
    assert problem(answer, 404, "route-not-found")["instance"] == "my-request.1"
    answer = client.get("/nothing", headers={"x-request-id": "a b\tc"})
    assert problem(answer, 404, "route-not-found")["instance"] != "a b\tc"


def test_pages_of_the_canonical_prefix_equal_the_aliases(client: httpx.Client) -> None:
    task = register(client, {"jump": [moving_clip(1)], "wave": [moving_clip(2)]})
    for path in ("/tasks", f"/tasks/{task['id']}", "/limits", "/info"):
        assert client.get(path).json() == client.get("/v1" + path).json(), path
    assert client.delete(f"/v1/tasks/{task['id']}").status_code == 204


async def test_a_crash_is_a_problem_without_its_reason() -> None:
    app = FastAPI()
    errors.install(app)
    app.add_middleware(RequestLog, meters=Meters(CollectorRegistry()))

    @app.get("/crash")
    async def crash() -> None:
        raise RuntimeError("a secret")

    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.get("/crash")
    refused = answer.json()
    assert (answer.status_code, refused["code"]) == (500, "internal-error")
    assert answer.headers["content-type"] == "application/problem+json"
    assert "secret" not in answer.text
    assert refused["instance"]


def test_the_document_resolves_and_names_every_refusal(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    text = json.dumps(document)
    names = set(re.findall(r'"#/components/schemas/(\w+)"', text))
    assert names <= set(document["components"]["schemas"])
    assert "#/$defs" not in text
    assert "HTTPValidationError" not in text
    ids = [op["operationId"] for path in document["paths"].values() for op in path.values()]
    assert len(set(ids)) == len(ids)
    assert all(path.startswith(("/v1/", "/v2/")) for path in document["paths"])
    for path in document["paths"].values():
        for operation in path.values():
            for status, answer in operation["responses"].items():
                if status >= "400" and "Health" not in str(answer):
                    assert list(answer["content"]) == ["application/problem+json"]


def test_a_slow_body_is_given_up(settings: Settings) -> None:
    slow = settings.model_copy(update={"upload_patience_s": 0.5})
    with serving(slow) as client:
        address = (client.base_url.host, client.base_url.port or 80)
        with socket.create_connection(address) as raw:
            raw.sendall(
                b"POST /tasks HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Content-Length: 1000\r\n\r\n{"
            )
            raw.settimeout(10)
            assert b" 408 " in raw.recv(4096)


def test_a_client_that_leaves_while_sending_is_no_crash(
    client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_connection((client.base_url.host, client.base_url.port or 80)) as raw:
        raw.sendall(
            b"POST /tasks HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 1000\r\n\r\n{"
        )
    time.sleep(0.3)
    assert client.get("/livez").status_code == 200
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
