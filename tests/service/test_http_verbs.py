"""Verbs: HEAD wherever GET is, and what is told of the others."""

import re
import time

import httpx
import pytest

from service.app import create_app
from service.http.access.scopes import PUBLIC_FOLDERS
from service.settings import Settings
from tests.service.test_keys import routes_of
from tests.serving import moving_clip, problem, register

ROUTES = routes_of(create_app(Settings()))
VERBS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
LITERAL = sorted(
    {
        route.template
        for route in ROUTES
        if "{" not in route.template and not route.template.startswith(PUBLIC_FOLDERS)
    }
)
READ = sorted({route.template for route in ROUTES if route.verb == "GET"})
OF_EACH = {"date", "x-request-id", "server-timing"}


@pytest.fixture(scope="module")
def task(client: httpx.Client) -> dict[str, str]:
    """Fill the parameters of paths with what is there."""
    made = register(client, {"jump": [moving_clip(1)], "wave": [moving_clip(2)]})
    model = client.get("/info").json()["model"]["name"]
    clip = made["clips"][0]["clip_id"]
    asked = client.post(
        f"/tasks/{made['id']}/classify",
        files=[("clip", ("q.mp4", moving_clip(3)))],
        data={"remember": "true"},
    )
    query = asked.json()["results"][0]["query_id"]
    named = {"task_id": made["id"], "clip_id": clip, "query_id": query, "model": model}
    return named | {"label": "jump", "name": "text.js", "path": "text.js"}


def filled(template: str, known: dict[str, str]) -> str:
    name = known | ({"name": known["model"]} if template.startswith("/v2") else {})
    return re.sub(r"\{(\w+)(:path)?\}", lambda found: name[found[1]], template)


@pytest.mark.parametrize("template", READ)
def test_head_answers_as_get_does_without_its_body(
    client: httpx.Client, task: dict[str, str], template: str
) -> None:
    path = filled(template, task)
    if path.endswith("swagger-ui.css"):
        path = "/static-offline-docs/swagger-ui.css"
    with client.stream("GET", path) as get:  # one of them never ends
        wanted = (get.status_code, {*get.headers} - OF_EACH, get.headers.get("content-type"))
        length = get.headers.get("content-length")
    head = client.head(path)
    assert head.content == b""
    chunked = {"transfer-encoding"}  # of a body, which is not there
    assert head.status_code == wanted[0] == 200, head.headers
    assert {*head.headers} - OF_EACH - chunked == wanted[1] - chunked
    assert head.headers.get("content-type") == wanted[2]
    if "metrics" not in path and "usage" not in path:  # which change
        assert head.headers.get("content-length") == length
    assert client.get("/livez").json()["ok"]


def test_head_of_what_is_not_there_is_its_refusal(client: httpx.Client) -> None:
    assert client.head(f"/tasks/{'0' * 32}").status_code == 404
    assert client.head("/nothing").status_code == 404
    refused = client.head("/tasks/import")
    assert (refused.status_code, refused.headers["allow"]) == (405, "POST")


def test_a_reader_of_heads_holds_no_place_among_the_readers_of_events(
    client: httpx.Client, task: dict[str, str]
) -> None:
    for _ in range(3):
        assert client.head(f"/tasks/{task['task_id']}/events").status_code == 200
    late = time.monotonic() + 20
    while in_flight(client) != 1:  # that which asks
        assert time.monotonic() < late
        time.sleep(0.05)


def in_flight(client: httpx.Client) -> float:
    found = re.search(r"^kshot_requests_in_flight (\S+)", client.get("/metrics").text, re.MULTILINE)
    assert found
    return float(found[1])


def test_a_head_is_counted_by_its_route(client: httpx.Client) -> None:
    client.head("/limits")
    text = client.get("/metrics").text
    assert re.search(r'duration_seconds_count\{method="HEAD",route="/limits",status="200"\}', text)


@pytest.mark.parametrize("path", LITERAL)
def test_a_path_without_parameters_has_its_own_verbs_and_no_other_route_s(
    client: httpx.Client, path: str
) -> None:
    """`/tasks/import` is no task."""
    own = {route.verb for route in ROUTES if route.template == path}
    own |= {"HEAD"} if "GET" in own else set()
    told = problem(client.request("OPTIONS", path), 405, "method-not-allowed")
    for verb in sorted({*VERBS} - own):
        answer = client.request(verb, path)
        assert answer.status_code == 405, verb
        assert answer.headers["allow"].split(", ") == [each for each in VERBS if each in own]
        if verb != "HEAD":
            assert f"{verb} is not a verb" in answer.json()["detail"]
    assert ", ".join(each for each in VERBS if each in own) in told["detail"]


@pytest.mark.parametrize("prefix", ["", "/v1"])
def test_every_verb_that_is_told_of_is_one_of_the_path(client: httpx.Client, prefix: str) -> None:
    """And each of them once, though several routes may have a path."""
    paths = ("", "/{id}", "/{id}/labels/w", "/{id}/labels/w/clips", "/{id}/labels/w/descriptions")
    for path in paths:
        address = f"{prefix}/tasks{path.replace('{id}', '0' * 32)}"
        told = client.request("OPTIONS", address).headers["allow"].split(", ")
        assert len(told) == len({*told})
        for verb in VERBS:
            refused = client.request(verb, address).status_code == 405
            assert refused is (verb not in told), (verb, address)
