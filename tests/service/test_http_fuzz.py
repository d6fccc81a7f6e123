"""Whatever is sent, the answer is no 5xx, and every refusal has the one shape."""

import json
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.serving import base64_of, moving_clip, register

CLIP = moving_clip(1)
FAST = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
TEXT = st.text(max_size=8)
KEYS = st.sampled_from(
    [
        "labels",
        "label",
        "clips",
        "video",
        "frames",
        "start_s",
        "end_s",
        "name",
        "descriptions",
        "ttl_s",
        "allow_partial",
        "inbox",
    ]
)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    TEXT,
    st.sampled_from([base64_of(CLIP), "aGk=", "jump", "wave"]),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | TEXT, inner, max_size=4),
    max_leaves=12,
)
CLIPS = st.lists(
    st.fixed_dictionaries(
        {}, optional={"video": LEAVES, "frames": st.lists(LEAVES, max_size=9), "start_s": LEAVES}
    ),
    max_size=2,
)
TASKS = st.fixed_dictionaries(
    {
        "labels": st.lists(
            st.fixed_dictionaries(
                {"label": TEXT, "clips": CLIPS}, optional={"descriptions": VALUES}
            ),
            max_size=3,
        )
    },
    optional={
        "name": TEXT,
        "ttl_s": LEAVES,
        "allow_partial": LEAVES,
        "descriptions": VALUES,
        "inbox": VALUES,
    },
)
NAMES = st.one_of(
    st.sampled_from(
        [
            "support[a]",
            "support[b]",
            "support[]",
            "support",
            "start_s[a]",
            "end_s[a]",
            "name",
            "descriptions",
            "ttl_s",
            "allow_partial",
            "inbox",
            "clip",
            "start_s",
            "end_s",
        ]
    ),
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=8),
)
PARTS = st.lists(
    st.tuples(
        NAMES,
        st.tuples(
            st.sampled_from([None, "a.mp4"]),
            st.one_of(st.binary(max_size=20), st.just(CLIP), TEXT.map(str.encode)),
        ),
    ),
    min_size=1,
    max_size=6,
)


def fine(answer: httpx.Response) -> None:
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
        body = answer.json()
        assert body["code"]
        assert body["detail"].endswith((".", "?"))
        assert len(body["detail"]) < 800


@pytest.fixture(scope="module")
def task_id(client: httpx.Client) -> str:
    return str(register(client, {"jump": [CLIP], "wave": [CLIP]})["id"])


@FAST
@given(body=TASKS | VALUES)
def test_any_json_is_answered(client: httpx.Client, task_id: str, body: object) -> None:
    raw = json.dumps(body)
    headers = {"content-type": "application/json"}
    fine(client.post("/tasks", content=raw, headers=headers))
    fine(client.post(f"/tasks/{task_id}/classify", content=raw, headers=headers))


@FAST
@given(parts=PARTS)
def test_any_form_is_answered(
    client: httpx.Client, task_id: str, parts: list[tuple[str, Any]]
) -> None:
    fine(client.post("/tasks", files=parts))
    fine(client.post(f"/tasks/{task_id}/classify", files=parts))


@FAST
@given(raw=st.binary(max_size=200), kind=st.sampled_from(["json", "form"]))
def test_any_bytes_are_answered(client: httpx.Client, task_id: str, raw: bytes, kind: str) -> None:
    content_type = "application/json" if kind == "json" else "multipart/form-data; boundary=b"
    body = raw if kind == "json" else b"--b\r\n" + raw + b"\r\n--b--\r\n"
    headers = {"content-type": content_type}
    fine(client.post("/tasks", content=body, headers=headers))
    fine(client.post(f"/tasks/{task_id}/classify", content=body, headers=headers))


@FAST
@given(
    path=st.binary(max_size=30),
    prefix=st.sampled_from(["/", "/v1/", "/tasks/", "/v1/tasks/"]),
    verb=st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD"]),
)
def test_any_path_is_answered(client: httpx.Client, verb: str, prefix: str, path: bytes) -> None:
    answer = client.request(verb, prefix + quote(path, safe="/?&="))
    assert answer.status_code < 500


@FAST
@given(
    headers=st.dictionaries(
        st.sampled_from(["prefer", "x-request-id", "content-type", "accept", "expect"]),
        st.text(st.characters(min_codepoint=33, max_codepoint=255), max_size=20),
        max_size=3,
    )
)
def test_any_header_is_answered(
    client: httpx.Client, task_id: str, headers: dict[str, str]
) -> None:
    raw = {name: value.encode("latin-1") for name, value in headers.items()}
    fine(client.post(f"/tasks/{task_id}/classify", content=b"{}", headers=raw))
    fine(client.get(f"/tasks/{task_id}", headers=raw))
