"""The OpenAPI document can be typed, and its page needs no other host."""

import base64
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest

from service.http.schemas import ClipBody
from tests.serving import classify, moving_clip, problem, register, scores

A, B, C = moving_clip(1), moving_clip(2), moving_clip(3)
FORM = "multipart/form-data"
Parts = list[tuple[str, tuple[str | None, bytes | str]]]


def in_step(*pairs: tuple[str, bytes], **spans: list[str]) -> Parts:
    """Write the clips of a task as repeated fields."""
    parts: Parts = []
    for place, (label, clip) in enumerate(pairs):
        parts += [("label", (None, label)), ("clip", (f"{place}.mp4", clip))]
        parts += [(name, (None, given[place])) for name, given in spans.items()]
    return parts


@pytest.fixture(scope="module")
def document(client: httpx.Client) -> dict[str, Any]:
    return dict(client.get("/openapi.json").json())


@pytest.mark.parametrize("path", ["/v1/tasks", "/v1/tasks/{task_id}/classify"])
def test_every_field_of_a_form_has_a_name_and_files_are_binary(
    document: dict[str, Any], path: str
) -> None:
    form = document["paths"][path]["post"]["requestBody"]["content"][FORM]["schema"]
    assert all(re.fullmatch(r"[a-z_]+", name) for name in form["properties"])
    clip = form["properties"]["clip"]
    assert clip["type"] == "array"
    assert clip["items"]["format"] == "binary"


def test_labels_and_clips_in_step_are_the_task_of_the_short_form(client: httpx.Client) -> None:
    parts = in_step(("jump", A), ("wave", B), ("jump", C))
    answer = client.post("/tasks", files=parts, data={"name": "typed"})
    assert answer.status_code == 201, answer.text
    typed = answer.json()
    assert [(label["label"], label["clips"]) for label in typed["labels"]] == [
        ("jump", 2),
        ("wave", 1),
    ]
    short = register(client, {"jump": [A, C], "wave": [B]})
    given, wanted = (scores(classify(client, task["id"], C)) for task in (typed, short))
    for label, numbers in given[0].items():
        assert wanted[0][label] == pytest.approx(numbers, abs=1e-5)


def test_spans_in_step_are_those_of_their_clips(client: httpx.Client) -> None:
    spans = {"start_s": ["", "0.5"], "end_s": ["0.6", ""]}
    answer = client.post("/tasks", files=in_step(("jump", A), ("wave", B), **spans))
    assert answer.status_code == 201, answer.text
    by_label = {clip["label"]: clip["frames_s"] for clip in answer.json()["clips"]}
    assert max(by_label["jump"]) <= 0.6
    assert min(by_label["wave"]) >= 0.5


def test_a_clip_s_part_without_a_file_name_is_a_file(client: httpx.Client) -> None:
    """As clients send it that are made from the document."""
    parts = b"".join(
        b'--x\r\ncontent-disposition: form-data; name="%b"\r\n%b\r\n%b\r\n' % part
        for part in (
            (b"label", b"", b"jump"),
            (b"clip", b"Content-Type: application/octet-stream\r\n", A),
            (b"label", b"", b"wave"),
            (b"clip", b"content-type: video/mp4\r\n", B),
        )
    )
    head = {"content-type": "multipart/form-data; boundary=x"}
    answer = client.post("/tasks", content=parts + b"--x--\r\n", headers=head)
    assert answer.status_code == 201, answer.text
    assert [clip["label"] for clip in answer.json()["clips"]] == ["jump", "wave"]
    assert [clip.get("name") for clip in answer.json()["clips"]] == [None, None]


BAD: dict[str, tuple[Parts, list[str]]] = {
    "a label missing": (
        [*in_step(("jump", A), ("wave", B)), ("clip", ("c.mp4", C))],
        ["label", "2 times for 3 clips"],
    ),
    "both forms": (
        [*in_step(("jump", A), ("wave", B)), ("support[jump]", ("c.mp4", C))],
        ["support[LABEL]", "one of the two"],
    ),
    "a label as a file": ([("label", ("l.txt", b"jump")), ("clip", ("a.mp4", A))], ["as text"]),
    "a clip as text": ([("label", (None, "jump")), ("clip", (None, "a.mp4"))], ["clip=@FILE"]),
    "a span missing": (
        [*in_step(("jump", A), ("wave", B)), ("start_s", (None, "1"))],
        ["start_s", "1 times for 2 clips"],
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_form_out_of_step_is_refused(client: httpx.Client, case: str) -> None:
    parts, said = BAD[case]
    refused = problem(client.post("/tasks", files=parts), 422, "invalid-request")
    assert not [words for words in said if words not in refused["detail"]], refused["detail"]


def test_the_page_needs_no_other_host(client: httpx.Client) -> None:
    page = client.get("/docs")
    assert page.status_code == 200
    named = re.findall(r"(?:src|href)\s*=\s*\"([^\"]+)\"", page.text)
    named += re.findall(r"url:\s*'([^']+)'", page.text)
    assert len(named) >= 4
    for address in named:
        assert urljoin("http://here/docs", address).startswith("http://here/")
        found = client.get(address)
        assert found.status_code == 200, address
        assert len(found.content) > 500
    style = next(client.get(address).text for address in named if address.endswith(".css"))
    assert not re.findall(r"url\(['\"]?https?:|@import", style)


@pytest.mark.parametrize("prefix", ["", "/v1"])
@pytest.mark.parametrize(
    ("path", "verbs"),
    [
        ("/tasks", "GET, HEAD, POST"),
        (f"/tasks/{'0' * 32}", "GET, HEAD, PATCH, DELETE"),
        ("/limits", "GET, HEAD"),
        ("/tasks/import", "POST"),
    ],
)
def test_a_verb_that_is_none_is_told_all_that_are(
    client: httpx.Client, prefix: str, path: str, verbs: str
) -> None:
    answer = client.request("OPTIONS", f"{prefix}{path}")
    refused = problem(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == verbs
    assert verbs in refused["detail"]


def test_the_document_asks_for_a_video_or_its_pictures(document: dict[str, Any]) -> None:
    """Each is a whole object: generators read an alternative without what stands around it."""
    clip = document["components"]["schemas"]["ClipBody"]
    assert "properties" not in clip
    video, pictures = clip["oneOf"]
    assert (video["required"], pictures["required"]) == (["video"], ["frames"])
    for one, other in ((video, "frames"), (pictures, "video")):
        assert set(one["properties"]) == set(ClipBody.model_fields)
        assert one["properties"][other] == {"type": "null"}
        assert one["additionalProperties"] is False


def test_the_document_says_what_base64_is_and_how_many_pictures(document: dict[str, Any]) -> None:
    video, pictures = document["components"]["schemas"]["ClipBody"]["oneOf"]
    frames = pictures["properties"]["frames"]
    assert (frames["minItems"], frames["maxItems"]) == (8, 32)
    for pattern in (video["properties"]["video"]["pattern"], frames["items"]["pattern"]):
        assert all(re.fullmatch(pattern, base64.b64encode(A[:n]).decode()) for n in (1, 2, 3, 99))
        assert not [text for text in ("", "a", "a===", "a-_b", "YQ") if re.fullmatch(pattern, text)]


def lists(schema: dict[str, Any] | list[Any]) -> Iterator[dict[str, Any]]:
    """Give every schema of a list that stands in a document."""
    for inner in schema.values() if isinstance(schema, dict) else schema:
        if isinstance(inner, dict | list):
            yield from lists(inner)
    if isinstance(schema, dict) and schema.get("type") == "array":
        yield schema


def test_every_list_of_the_document_says_what_it_holds(document: dict[str, Any]) -> None:
    """In `items`, too: generators of clients, made for OpenAPI 3.0, know no `prefixItems`."""
    assert not [found for found in lists(document) if not found.get("items")]


def test_the_document_says_what_a_cursor_looks_like(
    client: httpx.Client, document: dict[str, Any]
) -> None:
    """Of the cursors that it describes each is taken, and no other."""
    parameters = document["paths"]["/v1/tasks"]["get"]["parameters"]
    (pattern,) = [p["schema"]["pattern"] for p in parameters if p["name"] == "cursor"]
    for seed in (1, 2):
        register(client, {"jump": [A], "wave": [B]}, name=str(seed))
    given = client.get("/tasks", params={"limit": 1}).json()["next_cursor"]
    for cursor in (given, "0" * 16 + "-x", "f" * 16 + "-x", "", "x", given[:-1] + "%", given[1:]):
        status = 200 if re.search(pattern, cursor) else 422
        assert client.get("/tasks", params={"cursor": cursor}).status_code == status, cursor
    assert re.search(pattern, given)
