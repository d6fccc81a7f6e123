"""Registering, showing, listing and deleting tasks through real HTTP."""

import io
import json

import av
import httpx
import numpy as np
import pytest

from service.settings import Settings
from tests.service.conftest import png
from tests.serving import (
    base64_of,
    classify,
    moving_clip,
    problem,
    register,
    serving,
    support_files,
)
from tests.videos import make_video

BLOCK = np.ones((16, 16, 1), np.uint8)
LOSSLESS = {"qp": "0", "preset": "ultrafast"}
Clips = dict[str, list[bytes]]


def test_a_task_is_registered_and_classifies_its_own_clips(
    client: httpx.Client, clips: Clips
) -> None:
    answer = client.post("/tasks", files=support_files(clips), data={"name": "moves"})
    assert answer.status_code == 201, answer.text
    task = answer.json()
    assert answer.headers["location"] == f"/v1/tasks/{task['id']}"
    assert answer.headers["etag"] == '"1"'
    assert task["status"] == "ready"
    assert task["name"] == "moves"
    assert [(x["label"], x["clips"]) for x in task["labels"]] == [
        ("jump", 2),
        ("wave", 1),
        ("pour", 3),
    ]
    assert task["text"] == "template"
    assert all(len(clip["frames_s"]) == 8 for clip in task["clips"])
    result = classify(client, task["id"], clips["wave"][0])["results"][0]
    video = {ranked["label"]: ranked["video"] for ranked in result["ranking"]}
    assert max(video, key=video.__getitem__) == "wave"  # texts of random weights may outvote it
    assert result["score"] == max(ranked["score"] for ranked in result["ranking"])
    assert sum(ranked["score"] for ranked in result["ranking"]) == pytest.approx(1)
    assert result["margin"] == pytest.approx(
        result["ranking"][0]["score"] - result["ranking"][1]["score"]
    )
    assert result["unknown"] is (result["nearest"] < result["threshold"])
    assert all(len(ranked["stages"]) == 3 for ranked in result["ranking"])


def test_json_and_multipart_make_the_same_task(client: httpx.Client, clips: Clips) -> None:
    body = {
        "name": "json",
        "labels": [
            {"label": label, "clips": [{"video": base64_of(clip)} for clip in given]}
            for label, given in clips.items()
        ],
    }
    answer = client.post("/tasks", json=body)
    assert answer.status_code == 201, answer.text
    by_form = register(client, clips)
    query = moving_clip(77)
    one = classify(client, answer.json()["id"], query)["results"]
    assert one == classify(client, by_form["id"], query)["results"]
    in_json = client.post(
        f"/tasks/{by_form['id']}/classify",
        json={"clips": [{"video": base64_of(query), "name": "0.mp4"}]},
    )
    assert in_json.json()["results"] == one


def test_a_clip_may_be_pictures(client: httpx.Client, clips: Clips, pictures: list[bytes]) -> None:
    frames = [base64_of(picture) for picture in pictures]
    labels = [
        {"label": "jump", "clips": [{"frames": frames}]},
        {"label": "wave", "clips": [{"video": base64_of(clips["wave"][0])}]},
    ]
    answer = client.post("/tasks", json={"labels": labels})
    assert answer.status_code == 201, answer.text
    clip = answer.json()["clips"][0]
    assert (clip["codec"], clip["duration_s"]) == ("pictures", None)
    found = client.post(
        f"/tasks/{answer.json()['id']}/classify", json={"clips": [{"frames": frames}]}
    )
    assert found.json()["results"][0]["label"] == "jump"


def test_descriptions_of_the_client_take_part(client: httpx.Client, clips: Clips) -> None:
    stages = {label: [f"The {label} begins.", "It goes on.", "The jump ends."] for label in clips}
    given = client.post(
        "/tasks", files=support_files(clips), data={"descriptions": json.dumps(stages)}
    )
    assert given.status_code == 201, given.text
    assert [x["text_source"] for x in given.json()["labels"]] == ["client"] * 3
    assert given.json()["labels"][0]["descriptions"] == stages["jump"]


def test_unknown_words_leave_the_video_alone_and_say_so(client: httpx.Client, clip: bytes) -> None:
    task = register(client, {"somersault": [clip], "wave": [moving_clip(2)]})
    assert task["text"] is None
    assert "somersault" in task["text_reason"]
    answer = classify(client, task["id"], clip)
    assert answer["text_source"] is None
    assert "somersault" in answer["text_reason"]
    assert answer["results"][0]["ranking"][0]["text"] is None


@pytest.mark.parametrize("label", ["TurnLeft", "turn_left", "ＴＵＲＮ left", "wave!"])
def test_answers_keep_the_spelling_that_text_towers_do_not_see(
    client: httpx.Client, clip: bytes, label: str
) -> None:
    task = register(client, {label: [clip], "jump": [moving_clip(2)]})
    assert (task["text"], task["text_reason"]) == ("template", None)
    assert [each["label"] for each in task["labels"]] == [label, "jump"]
    assert {each["label"] for each in task["clips"]} == {label, "jump"}
    answer = classify(client, task["id"], clip)["results"][0]
    assert {ranked["label"] for ranked in answer["ranking"]} == {label, "jump"}


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ("wave 👋", "never saw the words '👋' of label 'wave 👋'"),
        ("!!!", "reads no word in the label '!!!'"),
        ("می\u200cدود", "never saw the words"),
        ("on a " * 20, "leaves no room for its stages in the 32 tokens"),
    ],
)
def test_a_label_that_the_tower_cannot_read_whole_is_scored_by_video_and_says_so(
    client: httpx.Client, clip: bytes, label: str, said: str
) -> None:
    task = register(client, {label: [clip], "jump": [moving_clip(2)]})
    assert [each["label"] for each in task["labels"]] == [label.strip(), "jump"]
    assert task["text"] is None
    assert said in task["text_reason"]
    assert "so the task is scored by video alone; " in task["text_reason"]
    assert classify(client, task["id"], clip)["text_reason"] == task["text_reason"]


def test_a_span_the_file_cut_to_it_and_its_pictures_give_one_ranking(
    client: httpx.Client, clips: Clips
) -> None:
    """The clip runs at 60 frames a second for half a second, then at 5."""
    rng = np.random.default_rng(3)
    greys = rng.integers(0, 255, (40, 4, 4, 1), np.uint8).repeat(3, axis=-1)
    shown = [np.kron(grey, BLOCK) for grey in greys]
    slow = [30 + 12 * k for k in range(11)]
    whole = make_video(shown, rate=60, ticks=[*range(30), *slow], options=LOSSLESS)
    cut = make_video(shown[30:38], rate=5, options=LOSSLESS)
    with av.open(io.BytesIO(cut)) as container:
        frames = [
            base64_of(png(frame.to_ndarray(format="rgb24"))) for frame in container.decode(video=0)
        ]
    given: list[dict[str, object]] = [
        {"video": base64_of(whole), "start_s": 0.5, "end_s": 2.1},
        {"video": base64_of(cut)},
        {"frames": frames},
    ]
    task = register(client, clips)["id"]
    answer = client.post(f"/tasks/{task}/classify", json={"clips": given}).json()
    span, file, pictures = answer["results"]
    assert span["ranking"] == file["ranking"]
    assert [x["label"] for x in pictures["ranking"]] == [x["label"] for x in span["ranking"]]
    for by_pictures, by_span in zip(pictures["ranking"], span["ranking"], strict=True):
        # Two conversions to RGB leave 1.3 of 255 between the pixels, on average.
        assert by_pictures["video"] == pytest.approx(by_span["video"], abs=5e-3)
    assert span["frames_s"] == pytest.approx([0.5 + k / 5 for k in range(8)])


def test_spans_choose_a_part_of_a_clip(client: httpx.Client, clips: Clips) -> None:
    spans = [
        ("start_s[jump]", "0.2"),
        ("start_s[jump]", ""),
        ("end_s[jump]", "0.9"),
        ("end_s[jump]", ""),
    ]
    parts = [(name, (None, value)) for name, value in spans]
    answer = client.post("/tasks", files=[*support_files(clips), *parts])
    assert answer.status_code == 201, answer.text
    task = answer.json()
    assert min(task["clips"][0]["frames_s"]) >= 0.19
    assert max(task["clips"][0]["frames_s"]) <= 0.91
    assert min(task["clips"][1]["frames_s"]) < 0.19
    found = client.post(
        f"/tasks/{task['id']}/classify",
        files={"clip": clips["jump"][0]},
        data={"start_s": "0.2", "end_s": "0.9"},
    )
    assert found.json()["results"][0]["frames_s"] == task["clips"][0]["frames_s"]


def test_a_task_is_shown_as_it_was_made(client: httpx.Client, clips: Clips) -> None:
    task = register(client, clips)
    for prefix in ("", "/v1"):
        shown = client.get(f"{prefix}/tasks/{task['id']}")
        assert shown.json() == task
        assert shown.headers["etag"] == '"1"'


def test_deleting_is_idempotent_and_final(client: httpx.Client, clips: Clips) -> None:
    task = register(client, clips)
    for _ in range(2):
        assert client.delete(f"/tasks/{task['id']}").status_code == 204
    problem(client.get(f"/tasks/{task['id']}"), 404, "task-not-found")
    problem(
        client.post(f"/v1/tasks/{task['id']}/classify", files={"clip": clips["wave"][0]}),
        404,
        "task-not-found",
    )
    assert client.delete("/tasks/never-was-there").status_code == 204


def test_pages_hold_every_task_once_newest_first(client: httpx.Client, clips: Clips) -> None:
    made = [register(client, clips)["id"] for _ in range(3)]
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = client.get("/tasks", params={"limit": 2} | ({"cursor": cursor} if cursor else {}))
        assert page.status_code == 200, page.text
        assert len(page.json()["tasks"]) <= 2
        seen += [task["id"] for task in page.json()["tasks"]]
        cursor = page.json()["next_cursor"]
        assert ("link" in page.headers) == (cursor is not None)
        if cursor is None:
            break
    assert seen[:3] == made[::-1]
    assert len(seen) == len(set(seen))


def test_one_bad_clip_is_left_out_when_asked(client: httpx.Client, clips: Clips) -> None:
    mixed = {**clips, "jump": [clips["jump"][0], b"no video at all"]}
    refused = problem(
        client.post("/tasks", files=support_files(mixed)), 415, "container-not-allowed"
    )
    assert [(c["index"], c["label"]) for c in refused["clips"]] == [(1, "jump")]
    task = register(client, mixed, allow_partial="true")
    assert [x["clips"] for x in task["labels"]] == [1, 1, 3]
    assert [(c["index"], c["label"]) for c in task["refused_clips"]] == [(1, "jump")]
    alone = {**clips, "wave": [b"no video at all"]}
    problem(
        client.post("/tasks", files=support_files(alone), data={"allow_partial": "true"}),
        415,
        "container-not-allowed",
    )


def test_clips_are_named_as_they_were_sent(client: httpx.Client, clips: Clips) -> None:
    bad = b"no video at all"
    files = [
        ("support[jump]", ("C:\\clips\\walk \xa0 1.mp4", clips["jump"][0], "video/mp4")),
        ("support[jump]", ("../bad.mp4", bad, "video/mp4")),
        ("support[wave]", ("w" * 300 + ".mp4", clips["wave"][0], "video/mp4")),
    ]
    refused = problem(client.post("/tasks", files=files), 415, "container-not-allowed")
    assert "Clip 1 ('bad.mp4', label 'jump')" in refused["detail"]
    assert [(c["index"], c["name"]) for c in refused["clips"]] == [(1, "bad.mp4")]
    answer = client.post("/tasks", files=files, data={"allow_partial": "true"})
    task = answer.json()
    told = [(c["clip_id"], c["index"], c["name"]) for c in task["clips"]]
    assert told == [("c0000", 0, "walk 1.mp4"), ("c0002", 2, "w" * 100)]
    assert task["refused_clips"][0]["name"] == "bad.mp4"
    asked = [("clip", ("a.mp4", clips["jump"][1], "video/mp4")), ("clip", ("b.mp4", bad, "x/y"))]
    results = client.post(f"/tasks/{task['id']}/classify", files=asked).json()["results"]
    assert [r["name"] for r in results] == ["a.mp4", "b.mp4"]


def test_json_may_name_clips(client: httpx.Client, clips: Clips) -> None:
    labels = [
        {"label": label, "clips": [{"video": base64_of(given[0]), "name": name}]}
        for (label, given), name in zip(clips.items(), ("a/b.mp4", None, " "), strict=True)
    ]
    task = client.post("/tasks", json={"labels": labels}).json()
    assert [c["name"] for c in task["clips"]] == ["b.mp4", None, None]


def test_a_list_of_tasks_is_short(client: httpx.Client, clips: Clips) -> None:
    task = register(client, clips, name="short")
    line = client.get("/tasks", params={"limit": 1}).json()["tasks"][0]
    assert line["labels"] == [label["label"] for label in task["labels"]]
    assert line["clips"] == 6
    assert "frames_s" not in str(line)
    assert {name: line[name] for name in line if name not in ("labels", "clips")} == {
        name: task[name] for name in line if name not in ("labels", "clips")
    }


@pytest.mark.parametrize(
    ("verb", "path"),
    [
        ("GET", "/tasks"),
        ("POST", "/tasks"),
        ("GET", "/tasks/abc"),
        ("DELETE", "/tasks/abc"),
        ("POST", "/tasks/abc/classify"),
        ("GET", "/limits"),
        ("GET", "/info"),
        ("GET", "/livez"),
        ("GET", "/readyz"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "/v1"])
def test_unknown_query_parameters_are_refused(
    client: httpx.Client, verb: str, path: str, prefix: str
) -> None:
    refused = client.request(verb, f"{prefix}{path}", params={"limt": "5"})
    told = problem(refused, 422, "unknown-field")
    assert "'limt'" in told["detail"]
    assert told["errors"][0]["field"] == "limt"
    assert ("limit, cursor" in told["detail"]) == ((verb, path) == ("GET", "/tasks"))


def test_a_task_too_large_for_the_supports_is_refused_and_not_stored(
    settings: Settings, clips: Clips
) -> None:
    with serving(settings.model_copy(update={"support_cache_bytes": 1000})) as client:
        refused = client.post("/tasks", files=support_files(clips))
        detail = problem(refused, 413, "task-too-large")["detail"]
        assert "1,000" in detail
        assert "KSHOT_SUPPORT_CACHE_BYTES" in detail
        assert client.get("/tasks").json()["tasks"] == []
