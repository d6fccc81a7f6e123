"""Timelines over HTTP: spans of a real video, in every form, and what is refused."""

import csv
import io
import json
import re
import time
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest

from service.http.timeline.forms import BORIS, as_vtt
from service.http.timeline.reading import form_of_answer
from service.http.timeline.schemas import TimelineView
from tests.model.media.test_stream import damaged
from tests.pools import decoder_processes
from tests.service.conftest import png
from tests.serving import base64_of, moving_clip, problem, query_files, register
from tests.videos import grey_frames, make_audio, make_video

KNOWN = {"unknown_below": "-1"}  # random weights tell nothing of what is unknown


def colour(red: int, blue: int, frames: int = 12) -> list[np.ndarray]:
    return [np.full((64, 64, 3), (red, 60, blue), np.uint8)] * frames


RED, BLUE = (make_video(colour(*rgb), rate=10) for rgb in ((230, 20), (20, 230)))


@pytest.fixture(scope="module")
def video() -> bytes:
    """Three seconds of red, three of blue, three of red."""
    shown = [*colour(230, 20, 30), *colour(20, 230, 30), *colour(230, 20, 30)]
    return make_video(shown, rate=10)


@pytest.fixture(scope="module")
def task(client: httpx.Client) -> str:
    return str(register(client, {"red": [RED], "blue": [BLUE]})["id"])


Ask = Callable[..., httpx.Response]


@pytest.fixture(scope="module")
def ask(client: httpx.Client, task: str) -> Ask:
    def asked(video: bytes, accept: str = "*/*", task: str = task, **fields: str) -> httpx.Response:
        return client.post(
            f"/tasks/{task}/timeline",
            files={"clip": ("day.mp4", video, "video/mp4")},
            data=fields,
            headers={"accept": accept},
        )

    return asked


@pytest.fixture(scope="module")
def found(ask: Ask, video: bytes) -> dict[str, Any]:
    answer = ask(video, scores="true", **KNOWN)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_spans_name_what_is_shown_and_when(found: dict[str, Any]) -> None:
    assert [span["label"] for span in found["spans"]] == ["red", "blue", "red"]
    starts_s = [span["start_s"] for span in found["spans"]]
    assert starts_s == pytest.approx([0, 3, 6], abs=0.7)
    assert found["spans"][-1]["end_s"] == found["duration_s"] == 9
    for span in found["spans"]:
        assert span["start_s"] <= span["peak_s"] <= span["end_s"]
        assert 0.5 < span["score"] <= 1
    assert (found["name"], found["codec"], found["warnings"]) == ("day.mp4", "h264", [])


def test_defaults_are_those_of_the_tasks_clips(found: dict[str, Any]) -> None:
    assert found["window_s"] == pytest.approx(1.2)
    assert found["stride_s"] == pytest.approx(0.3)
    assert found["windows"] == len(found["scores"]) == 27


def test_a_window_scores_as_a_clip_of_its_time(
    client: httpx.Client, task: str, video: bytes, found: dict[str, Any]
) -> None:
    for place in (0, 11):
        window = found["scores"][place]
        answer = client.post(
            f"/tasks/{task}/classify",
            files=query_files(video),
            data={"start_s": window["start_s"], "end_s": window["end_s"]},
        ).json()["results"][0]
        alone = {ranked["label"]: ranked["score"] for ranked in answer["ranking"]}
        assert window["scores"] == pytest.approx(alone, abs=1e-5)
        assert window["nearest"] == pytest.approx(answer["nearest"], abs=1e-5)


def events(text: str) -> list[tuple[str, Any]]:
    blocks = re.findall(r"event: (\w+)\ndata: (.*)\n\n", text)
    return [(name, json.loads(data)) for name, data in blocks]


def test_events_come_as_spans_become_final(ask: Ask, video: bytes, found: dict[str, Any]) -> None:
    answer = ask(video, "text/event-stream", scores="true", **KNOWN)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-accel-buffering"] == "no"
    told = events(answer.text)
    assert told[0][0] == "begun"
    assert told[-1][0] == "ended"
    assert [data for name, data in told if name == "span"] == found["spans"]
    windows = [each for name, data in told if name == "windows" for each in data["windows"]]
    assert windows == found["scores"]
    settled_s = [data["settled_s"] for name, data in told if name == "progress"]
    assert settled_s == sorted(settled_s)
    names = [name for name, _ in told]
    assert "span" in names[: names.index("progress", 4)], "the first span is told on the way"
    whole = {**told[0][1], **told[-1][1]}
    assert {name: found[name] for name in whole if name != "took_s"} == {
        name: value for name, value in whole.items() if name != "took_s"
    }


def test_csv_has_the_columns_of_boris(ask: Ask, video: bytes, found: dict[str, Any]) -> None:
    answer = ask(video, "image/png, text/csv;q=0.5", **KNOWN)
    assert answer.headers["content-type"].startswith("text/csv")
    lines = list(csv.DictReader(io.StringIO(answer.text)))
    assert tuple(lines[0]) == BORIS
    shown = [
        (line["Behavior"], float(line["Start (s)"]), float(line["Stop (s)"])) for line in lines
    ]
    assert shown == [(span["label"], span["start_s"], span["end_s"]) for span in found["spans"]]
    assert {line["Behavior type"] for line in lines} == {"STATE"}


def test_webvtt_has_a_cue_a_span(found: dict[str, Any]) -> None:
    spans = [span | {"label": f"<{span['label']}>"} for span in found["spans"]]
    text = as_vtt(TimelineView.model_validate(found | {"spans": spans}))
    assert text.startswith("WEBVTT\n\n1\n00:00:00.000 --> 00:00:0")
    cues = re.findall(r"00:00:0\d\.\d{3} --> 00:00:0\d\.\d{3}\n(.+) \(\d+%\)\n", text)
    assert cues == ["&lt;red&gt;", "&lt;blue&gt;", "&lt;red&gt;"]


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        *(("", "application/json"), ("text/html, */*;q=0.1", "application/json")),
        *(("application/json;q=0.2, text/vtt", "text/vtt"), ("text/*", "text/csv")),
        ("text/event-stream", "text/event-stream"),
    ],
)
def test_the_form_is_the_one_that_the_client_likes_best(accept: str, form: str) -> None:
    assert form_of_answer(accept) == form


def test_json_takes_a_video_as_base64(
    client: httpx.Client, task: str, found: dict[str, Any]
) -> None:
    body = {"clip": {"video": base64_of(RED), "name": "a.mp4"}, "window_s": 1}
    answer = client.post(f"/tasks/{task}/timeline", json=body | {"unknown_below": -1.0})
    assert answer.status_code == 200, answer.text
    assert [span["label"] for span in answer.json()["spans"]] == ["red"]
    assert answer.json()["window_s"] == 1
    assert answer.json()["scores"] is None
    assert found["scores"] is not None


def test_what_looks_like_no_label_is_background(ask: Ask, video: bytes) -> None:
    answer = ask(video, unknown_below="1", unknown_slack="0")
    assert answer.json()["spans"] == []


def test_a_video_damaged_in_the_middle_is_used_up_to_there(ask: Ask) -> None:
    answer = ask(damaged(45, 90), window_s="0.6", **KNOWN)
    assert answer.status_code == 200, answer.text
    assert answer.json()["duration_s"] < 2
    assert "not whole" in answer.json()["warnings"][0]
    assert answer.json()["spans"][-1]["end_s"] <= answer.json()["duration_s"]


STILL = png(np.zeros((48, 64, 3), np.uint8))
REFUSED = [
    ("a still", STILL, {}, 415, "container-not-allowed"),
    ("sound alone", make_audio(), {}, 422, "no-video-stream"),
    ("one frame", make_video(grey_frames(1)), {}, 422, "clip-too-short"),
    ("no video", b"no video at all", {}, 415, "container-not-allowed"),
    ("short video", moving_clip(1), {"window_s": "2"}, 422, "window-too-long"),
    ("tiny window", moving_clip(1), {"window_s": "0.01"}, 422, "invalid-request"),
    (
        "stride far below",
        moving_clip(1),
        {"window_s": "1", "stride_s": "0.06"},
        422,
        "invalid-request",
    ),
    ("stride far below default", RED, {"stride_s": "0.05"}, 422, "invalid-request"),
    ("no number", moving_clip(1), {"window_s": "long"}, 422, "invalid-request"),
    ("leave above", moving_clip(1), {"enter": "0.2", "leave": "0.4"}, 422, "invalid-request"),
    ("leave above default", moving_clip(1), {"leave": "0.9"}, 422, "invalid-request"),
    ("unknown field", moving_clip(1), {"start_s": "1"}, 422, "unknown-field"),
]


@pytest.mark.parametrize(
    ("video", "fields", "status", "code"), [e[1:] for e in REFUSED], ids=[e[0] for e in REFUSED]
)
def test_what_cannot_be_followed_is_refused(
    ask: Ask, video: bytes, fields: dict[str, str], status: int, code: str
) -> None:
    accept = "text/event-stream" if code == "no-video-stream" else "*/*"
    problem(ask(video, accept, **fields), status, code)


def test_a_problem_found_on_the_way_is_the_last_event(ask: Ask) -> None:
    told = events(ask(make_video(grey_frames(1)), "text/event-stream").text)
    assert [name for name, _ in told] == ["begun", "problem"]
    assert told[-1][1]["code"] == "clip-too-short"


def test_requests_that_ask_for_nothing_here_are_refused(
    client: httpx.Client, task: str, ask: Ask
) -> None:
    problem(ask(moving_clip(1), task="0" * 32), 404, "task-not-found")
    problem(ask(moving_clip(1), "image/png"), 406, "not-acceptable")
    url = f"/tasks/{task}/timeline"
    problem(client.post(url, files={"scores": (None, "true")}), 422, "no-clips")
    two = query_files(moving_clip(1), moving_clip(2))
    problem(client.post(url, files=two), 422, "too-many-clips")
    body = {"clip": {"frames": [base64_of(STILL)]}}
    problem(client.post(url, json=body), 422, "unknown-field")


def test_a_client_that_leaves_ends_the_process(client: httpx.Client, task: str) -> None:
    before = {*decoder_processes()}  # one of an earlier test may still be ending
    long = make_video(colour(230, 20, 1600), rate=2)  # 13 minutes
    url, files = f"/tasks/{task}/timeline", {"clip": ("day.mp4", long)}
    headers = {"accept": "text/event-stream"}
    with client.stream("POST", url, files=files, headers=headers) as answer:
        texts = answer.iter_text()  # kept: an iterator that nobody has closes the connection
        assert next(texts).startswith("event: begun")
        [own] = {*decoder_processes()} - before
    deadline = time.monotonic() + 60  # of a busy machine
    while own in decoder_processes() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert own not in decoder_processes()
