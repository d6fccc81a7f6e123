"""Every bad request is a 4xx problem with its code, value and remedy, and stores nothing."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from service.settings import Settings
from tests.serving import (
    Files,
    base64_of,
    moving_clip,
    problem,
    query_files,
    register,
    serving,
    support_files,
)
from tests.videos import grey_frames, make_audio, make_video

A, B = moving_clip(1), moving_clip(2)
GOOD: dict[str, list[bytes]] = {"jump": [A], "wave": [B]}
STAGES = ["It begins.", "It goes on.", "It ends."]
FRAGMENTED = make_video(grey_frames(9), container_options={"movflags": "empty_moov"})
NO_FRAMES = FRAGMENTED[: FRAGMENTED.index(b"moof") - 4]
MPEG1 = make_video(grey_frames(9), codec="mpeg1video", container="avi")
HLS = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n"


def clip_json(clip: bytes = A, **more: object) -> dict[str, object]:
    return {"video": base64_of(clip), **more}


def task_json(**more: object) -> dict[str, object]:
    labels = [
        {"label": "jump", "clips": [clip_json(A)]},
        {"label": "wave", "clips": [clip_json(B)]},
    ]
    return {"labels": labels, **more}


@pytest.fixture(scope="module")
def small(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A service with small limits, and with tasks counted around each test."""
    settings = Settings(
        checkpoint=str(checkpoint),
        store=f"sqlite:{tmp_path_factory.mktemp('small') / 'kshot.db'}",
        threads=1,
        decode_workers=1,
        max_labels=4,
        max_shots=2,
        max_support_clips=5,
        max_query_clips=3,
        max_clip_bytes=60_000,
        max_base64_bytes=30_000,
        max_request_bytes=200_000,
        max_clip_s=3,
        max_pixels=30_000,
        max_ttl_s=1000,
    )
    with serving(settings) as client:
        yield client


@pytest.fixture
def nothing_stored(small: httpx.Client) -> Iterator[None]:
    before = small.get("/tasks").json()
    yield
    assert small.get("/tasks").json() == before


stores_nothing = pytest.mark.usefixtures("nothing_stored")


def form(clips: dict[str, list[bytes]], **texts: str) -> Files:
    parts: list[Any] = [(name, (None, value)) for name, value in texts.items()]
    return [*support_files(clips), *parts]


FORMS: dict[str, tuple[Files, int, str, list[str]]] = {
    "one label": (form({"jump": [A, B]}), 422, "too-few-labels", ["'jump'", "at least 2"]),
    "no label": (form({}, name="empty"), 422, "too-few-labels", ["0 labels"]),
    "too many labels": (
        form({f"l{n}": [A] for n in range(5)}),
        422,
        "too-many-labels",
        ["5 labels", "at most 4"],
    ),
    "empty label": (form({" ": [A], "wave": [B]}), 422, "label-empty", ["empty"]),
    "long label": (form({"x" * 101: [A], "wave": [B]}), 422, "label-too-long", ["101", "100"]),
    "labels that read the same": (
        form({"Wave": [A], "wave": [B]}),
        422,
        "label-duplicate",
        ["'Wave'", "'wave'"],
    ),
    "labels that are one text": (
        form({"BrushHair": [A], "brush_hair": [B]}),
        422,
        "label-duplicate",
        ["'BrushHair'", "'brush_hair'"],
    ),
    "a label in full width": (
        form({"brush hair": [A], "ｂｒｕｓｈ＿ｈａｉｒ": [B]}),
        422,
        "label-duplicate",
        ["'brush hair'", "'ｂｒｕｓｈ＿ｈａｉｒ'"],
    ),
    "a label in two normal forms": (
        form({"K\u00f6pfen": [A], "Ko\u0308pfen": [B]}),
        422,
        "label-duplicate",
        ["'K\u00f6pfen'", "'Ko\u0308pfen'"],
    ),
    "too many shots": (form({"jump": [A, A, A], "wave": [B]}), 422, "too-many-clips", ["jump"]),
    "too many files": (
        form({"jump": [A, A], "wave": [B, B], "clap": [A, A]}),
        422,
        "too-many-clips",
        ["5"],
    ),
    "a clip as text": (
        [*support_files({"wave": [B]}), ("support[jump]", (None, b"a.mp4", "text/plain"))],
        422,
        "invalid-request",
        ["support[jump]=@FILE", "a.mp4"],
    ),
    "unknown field": (form(GOOD, nmae="x"), 422, "unknown-field", ["'nmae'"]),
    "field twice": (
        [*form(GOOD, name="a"), ("name", (None, b"b", "text/plain"))],
        422,
        "invalid-request",
        ["'name'", "twice"],
    ),
    "descriptions of an unknown label": (
        form(GOOD, descriptions=json.dumps({"jump": STAGES, "wave": STAGES, "sit": STAGES})),
        422,
        "label-unknown",
        ["'sit'"],
    ),
    "descriptions of one label in two spellings": (
        form(GOOD, descriptions=json.dumps({"jump": STAGES, "wave": STAGES, "Wave": STAGES})),
        422,
        "label-duplicate",
        ["'wave'", "'Wave'"],
    ),
    "a span of an unknown label": (
        form(GOOD, **{"start_s[sit]": "1"}),
        422,
        "label-unknown",
        ["'sit'"],
    ),
    "mixed text forms": (
        form(GOOD, descriptions=json.dumps({"jump": STAGES})),
        422,
        "descriptions-mixed",
        ["'jump'", "'wave'"],
    ),
    "two stages": (
        form(GOOD, descriptions=json.dumps({"jump": STAGES[:2], "wave": STAGES})),
        422,
        "description-invalid",
        ["'jump'", "3"],
    ),
    "descriptions no JSON": (
        form(GOOD, descriptions="{jump: x}"),
        422,
        "invalid-request",
        ["descriptions"],
    ),
    "descriptions no object": (form(GOOD, descriptions="[1]"), 422, "invalid-request", []),
    "ttl no number": (form(GOOD, ttl_s="soon"), 422, "invalid-request", ["ttl_s", "'soon'"]),
    "ttl nan": (form(GOOD, ttl_s="nan"), 422, "invalid-request", ["ttl_s"]),
    "ttl negative": (form(GOOD, ttl_s="-1"), 422, "invalid-request", ["ttl_s", "-1"]),
    "ttl too long": (form(GOOD, ttl_s="1e9"), 422, "invalid-request", ["ttl_s", "1000"]),
    "inbox no JSON": (form(GOOD, inbox="50"), 422, "invalid-request", ["inbox"]),
    "inbox too large": (form(GOOD, inbox='{"keep": 501}'), 422, "invalid-request", ["inbox.keep"]),
    "no truth": (form(GOOD, allow_partial="maybe"), 422, "invalid-request", ["'maybe'"]),
    "spans not one a clip": (
        form({"jump": [A, A], "wave": [B]}, **{"start_s[jump]": "0.1"}),
        422,
        "invalid-request",
        ["start_s[jump]", "1 times", "2 clips"],
    ),
    "span outside the clip": (
        form(GOOD, **{"start_s[jump]": "100"}),
        422,
        "clip-span",
        ["100"],
    ),
    "span backwards": (
        form(GOOD, **{"start_s[jump]": "0.9", "end_s[jump]": "0.1"}),
        422,
        "clip-span",
        [],
    ),
    "no video": (form({"jump": [b"hello"], "wave": [B]}), 415, "container-not-allowed", []),
    "empty file": (form({"jump": [b""], "wave": [B]}), 422, "clip-undecodable", ["no bytes"]),
    "playlist": (form({"jump": [HLS], "wave": [B]}), 415, "container-not-allowed", []),
    "audio only": (form({"jump": [make_audio()], "wave": [B]}), 422, "no-video-stream", []),
    "codec": (
        form(
            {"jump": [make_video(grey_frames(9), codec="mpeg1video", container="avi")], "wave": [B]}
        ),
        415,
        "codec-not-allowed",
        ["mpeg1video"],
    ),
    "too long": (
        form({"jump": [make_video(grey_frames(40), rate=10)], "wave": [B]}),
        422,
        "clip-too-long",
        ["4", "3"],
    ),
    "too short": (
        form({"jump": [make_video(grey_frames(2))], "wave": [B]}),
        422,
        "clip-too-short",
        ["0.2"],
    ),
    "too many pixels": (
        form({"jump": [make_video(grey_frames(9, 320, 240))], "wave": [B]}),
        422,
        "picture-too-large",
        [],
    ),
    "clip too large": (
        form({"jump": [A + bytes(60_000)], "wave": [B]}),
        413,
        "clip-too-large",
        ["60000"],
    ),
    "zero frames": (form({"jump": [NO_FRAMES], "wave": [B]}), 422, "no-frames", []),
    "truncated": (form({"jump": [A[: len(A) // 2]], "wave": [B]}), 422, "clip-undecodable", []),
}


@stores_nothing
@pytest.mark.parametrize("case", FORMS)
def test_a_bad_form_is_refused(small: httpx.Client, case: str) -> None:
    files, status, code, said = FORMS[case]
    refused = problem(small.post("/tasks", files=files), status, code)
    assert not [word for word in said if word not in refused["detail"]], refused["detail"]
    assert not refused["retryable"]


BODIES: dict[str, tuple[object, int, str, list[str]]] = {
    "unknown field": (task_json(colour="red"), 422, "unknown-field", ["colour"]),
    "no labels": ({}, 422, "invalid-request", ["labels"]),
    "empty labels": ({"labels": []}, 422, "too-few-labels", []),
    "one label": (
        {"labels": [{"label": "jump", "clips": [clip_json()]}]},
        422,
        "too-few-labels",
        ["'jump'"],
    ),
    "a label twice": (
        {"labels": [{"label": "jump", "clips": [clip_json()]}] * 2},
        422,
        "label-duplicate",
        ["'jump'"],
    ),
    "no clips": (
        {
            "labels": [
                {"label": "jump", "clips": []},
                {"label": "wave", "clips": [clip_json()]},
            ]
        },
        422,
        "label-without-clips",
        ["'jump'"],
    ),
    "control characters only": (
        {"labels": [{"label": "\x01\x02", "clips": [clip_json()]}] * 2},
        422,
        "label-empty",
        [],
    ),
    "label no string": (
        {"labels": [{"label": 5, "clips": [clip_json()]}] * 2},
        422,
        "invalid-request",
        ["labels.0.label", "5"],
    ),
    "video and frames": (
        {"labels": [{"label": "jump", "clips": [clip_json(frames=["aGk="])]}] * 2},
        422,
        "invalid-request",
        ["both"],
    ),
    "neither": (
        {"labels": [{"label": "jump", "clips": [{}]}] * 2},
        422,
        "invalid-request",
        ["neither"],
    ),
    "no base64": (
        {"labels": [{"label": "jump", "clips": [{"video": "data:video/mp4;base64,AA"}]}] * 2},
        422,
        "base64-invalid",
        ["data:video"],
    ),
    "too much base64": (
        {
            "labels": [
                {"label": "jump", "clips": [clip_json(A + bytes(30_000))]},
                {"label": "wave", "clips": [clip_json()]},
            ]
        },
        413,
        "clip-too-large",
        ["multipart"],
    ),
    "too few pictures": (
        {
            "labels": [
                {"label": "jump", "clips": [{"frames": ["aGk="] * 3}]},
                {"label": "wave", "clips": [clip_json()]},
            ]
        },
        422,
        "picture-count",
        ["3", "8"],
    ),
    "no pictures": (
        {
            "labels": [
                {"label": "jump", "clips": [{"frames": []}]},
                {"label": "wave", "clips": [clip_json()]},
            ]
        },
        422,
        "picture-count",
        [],
    ),
    "pictures that are none": (
        {
            "labels": [
                {"label": "jump", "clips": [{"frames": ["aGk="] * 8}]},
                {"label": "wave", "clips": [clip_json()]},
            ]
        },
        422,
        "clip-undecodable",
        [],
    ),
    "descriptions in two places": (
        {
            "labels": [
                {"label": "jump", "clips": [clip_json()], "descriptions": STAGES},
                {"label": "wave", "clips": [clip_json()], "descriptions": STAGES},
            ],
            "descriptions": {"jump": STAGES, "wave": STAGES},
        },
        422,
        "descriptions-mixed",
        ["'jump'"],
    ),
    "a list": ([1, 2], 422, "invalid-request", []),
    "ttl zero": (task_json(ttl_s=0), 422, "invalid-request", ["ttl_s"]),
    "inbox of another kind": (task_json(inbox={"all": True}), 422, "unknown-field", ["inbox.all"]),
    "long name": (task_json(name="n" * 201), 422, "invalid-request", ["201", "200"]),
}


@stores_nothing
@pytest.mark.parametrize("case", BODIES)
def test_a_bad_body_is_refused(small: httpx.Client, case: str) -> None:
    body, status, code, said = BODIES[case]
    refused = problem(small.post("/tasks", json=body), status, code)
    assert not [word for word in said if word not in refused["detail"]], refused["detail"]


@stores_nothing
@pytest.mark.parametrize(
    "raw",
    [
        b"{",
        b"",
        b"\xff\xfe",
        b'{"labels": NaN}',
        b'{"labels": [], "labels": []}',
        b'{"name": "\\ud800", "labels": []}',
        b"[" * 100_000,
        b"1" * 10_000,
    ],
)
def test_what_is_no_json_is_refused(small: httpx.Client, raw: bytes) -> None:
    answer = small.post("/tasks", content=raw, headers={"content-type": "application/json"})
    problem(answer, 400, "malformed-request")


@stores_nothing
@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", None])
def test_other_content_types_are_refused(small: httpx.Client, kind: str | None) -> None:
    headers = {} if kind is None else {"content-type": kind}
    refused = problem(
        small.post("/tasks", content=b"x", headers=headers), 415, "media-type-not-supported"
    )
    assert "multipart/form-data" in refused["detail"]


@stores_nothing
@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=b", b"no part at all"),
        ("multipart/form-data; boundary=b", b"--b\r\nContent-Disposition: form-data\r\n\r\nx"),
    ],
)
def test_broken_multipart_is_refused(small: httpx.Client, kind: str, body: bytes) -> None:
    answer = small.post("/tasks", content=body, headers={"content-type": kind})
    problem(answer, 400, "malformed-request")


@pytest.fixture(scope="module")
def task_id(small: httpx.Client) -> str:
    return str(register(small, GOOD)["id"])


QUERIES: dict[str, tuple[Callable[[], dict[str, Any]], int, str]] = {
    "a clip as text": (
        lambda: {"files": [("clip", (None, b"text", "text/plain"))]},
        422,
        "invalid-request",
    ),
    "no clips": (lambda: {"json": {"clips": []}}, 422, "no-clips"),
    "too many": (lambda: {"files": query_files(A, A, A, A)}, 422, "too-many-clips"),
    "too many in JSON": (lambda: {"json": {"clips": [clip_json()] * 4}}, 422, "too-many-clips"),
    "unknown field": (lambda: {"files": {"video": A}}, 422, "unknown-field"),
    "unknown JSON field": (lambda: {"json": {"clip": []}}, 422, "unknown-field"),
    "no video": (lambda: {"files": query_files(b"hello")}, 415, "container-not-allowed"),
    "two faults": (lambda: {"files": query_files(b"hello", make_audio())}, 422, "clips-unusable"),
}


@stores_nothing
@pytest.mark.parametrize("case", QUERIES)
def test_a_bad_query_is_refused(small: httpx.Client, task_id: str, case: str) -> None:
    request, status, code = QUERIES[case]
    problem(small.post(f"/tasks/{task_id}/classify", **request()), status, code)


def test_a_clip_that_cannot_be_read_leaves_the_others_alone(
    small: httpx.Client, task_id: str
) -> None:
    answer = small.post(f"/tasks/{task_id}/classify", files=query_files(A, b"hello", B))
    assert answer.status_code == 200
    first, second, third = answer.json()["results"]
    assert second["label"] is None
    nearest = [
        max(one["ranking"], key=lambda ranked: ranked["video"])["label"] for one in (first, third)
    ]
    assert nearest == ["jump", "wave"]  # texts of random weights may outvote frames
    assert second["clip_index"] == 1
    assert second["error"]["code"] == "container-not-allowed"
    assert first["error"] is None


def test_an_unknown_task_is_not_found(small: httpx.Client) -> None:
    for unknown in ("0" * 32, "x", "%2e%2e", "a" * 500, "é"):
        answer = small.get(f"/tasks/{unknown}")
        assert answer.status_code == 404, unknown
        assert answer.headers["content-type"] == "application/problem+json"
    problem(small.get(f"/tasks/{'0' * 32}"), 404, "task-not-found")
    answer = small.post(f"/tasks/{'0' * 32}/classify", files=query_files(A))
    problem(answer, 404, "task-not-found")


def test_an_expired_task_is_gone(small: httpx.Client) -> None:

    task = register(small, GOOD, ttl_s="0.2")
    assert task["expires_at"] is not None
    time.sleep(0.3)
    problem(small.get(f"/tasks/{task['id']}"), 410, "task-expired")
    answer = small.post(f"/tasks/{task['id']}/classify", files=query_files(A))
    problem(answer, 410, "task-expired")


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "cursor=nonsense"])
def test_a_bad_page_is_refused(small: httpx.Client, query: str) -> None:
    answer = small.get(f"/tasks?{query}")
    assert answer.status_code == 422
    name = query.partition("=")[0]
    assert answer.json()["code"] in ("invalid-request", "cursor-invalid")
    assert name in answer.json()["detail"]


@stores_nothing
def test_a_body_over_the_cap_is_refused_while_it_is_received(small: httpx.Client) -> None:
    refused = problem(
        small.post("/tasks", files=support_files({"jump": [bytes(300_000)], "wave": [B]})),
        413,
        "request-too-large",
    )
    assert "200000" in refused["detail"]


@stores_nothing
def test_a_body_over_the_cap_without_a_length_is_refused(small: httpx.Client) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        yield b'--b\r\nContent-Disposition: form-data; name="support[a]"; filename="a"\r\n\r\n'
        for _ in range(100):
            sent += 10_000
            yield bytes(10_000)

    headers = {"content-type": "multipart/form-data; boundary=b"}
    problem(small.post("/tasks", content=endless(), headers=headers), 413, "request-too-large")


@stores_nothing
def test_a_length_that_lies_is_not_believed(small: httpx.Client) -> None:

    with socket.create_connection((small.base_url.host, small.base_url.port or 80)) as raw:
        raw.sendall(
            b"POST /tasks HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 99999999999\r\n\r\n{"
        )
        assert b" 413 " in raw.recv(4096)


@stores_nothing
def test_refusals_hold_no_clip(small: httpx.Client) -> None:
    secret = base64_of(np.random.default_rng(0).bytes(9000))
    body = {"labels": [{"label": "a", "clips": [{"video": [secret]}]}]}
    refused = problem(small.post("/tasks", json=body), 422, "invalid-request")
    assert secret[:100] not in json.dumps(refused)
