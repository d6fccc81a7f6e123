"""Changing tasks through real HTTP: a change is a revision, and scores are those of the clips."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from service.settings import Settings
from tests.changing import change_for, check
from tests.model.tiny import tiny_recognizer
from tests.redis_server import redis_server
from tests.serving import (
    base64_of,
    classify,
    moving_clip,
    problem,
    query_files,
    register,
    scores,
    serving,
    tiny_checkpoint,
)

QUERY = moving_clip(8)
A, B, C, D, E = (moving_clip(seed) for seed in range(1, 6))
CLIPS = {"jump": [A, B], "wave": [C]}
DAMAGED = b"\x00\x00\x00\x20ftypisom" + bytes(200)


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Serve a method whose supports do not see each other; `client` serves one where they do."""
    folder = tmp_path_factory.mktemp("apart")
    checkpoint = tiny_checkpoint(folder / "checkpoint", query_context="none")
    store = f"sqlite:{folder / 'kshot.db'}"
    with serving(
        Settings(checkpoint=str(checkpoint), store=store, threads=1, decode_workers=2)
    ) as client:
        yield client


def changed(answer: httpx.Response, revision: int) -> dict[str, Any]:
    """Assert that a change was made and is this revision, and return the task."""
    assert answer.status_code == 200, answer.text
    task: dict[str, Any] = answer.json()
    assert task["revision"] == revision
    assert answer.headers["etag"] == f'"{revision}"'
    assert task["status"] == "ready"
    return task


def same_scores(client: httpx.Client, task_id: str, clips: dict[str, list[bytes]]) -> None:
    """Assert that a task scores as one that is registered with these clips at once."""
    fresh = register(client, clips)
    (given,), (wanted,) = (scores(classify(client, each, QUERY)) for each in (task_id, fresh["id"]))
    assert given.keys() == wanted.keys()
    for label, numbers in wanted.items():
        assert given[label] == pytest.approx(numbers, abs=1e-5)


@pytest.mark.parametrize("method", ["apart", "together"])
def test_a_task_that_was_changed_scores_as_one_made_so(
    client: httpx.Client, apart: httpx.Client, method: str
) -> None:
    http = apart if method == "apart" else client
    task_id = register(http, CLIPS)["id"]
    path = f"/tasks/{task_id}"
    task = changed(http.post(f"{path}/labels/wave/clips", files=query_files(D)), 2)
    assert [(x["label"], x["clips"]) for x in task["labels"]] == [("jump", 2), ("wave", 2)]
    (new,) = task["change"]["added_clips"]
    assert task["clips"][-1]["clip_id"] == new
    same_scores(http, task_id, {"jump": [A, B], "wave": [C, D]})
    first = task["clips"][0]["clip_id"]
    changed(http.delete(f"{path}/clips/{first}"), 3)
    changed(http.put(f"{path}/labels/pour", files=query_files(E, A)), 4)
    same_scores(http, task_id, {"jump": [B], "wave": [C, D], "pour": [E, A]})
    changed(http.delete(f"{path}/labels/jump"), 5)
    changed(http.patch(f"{path}/labels/pour", json={"label": "jump"}), 6)
    same_scores(http, task_id, {"wave": [C, D], "jump": [E, A]})
    body = {"clips": [{"video": base64_of(B), "name": "b.mp4"}]}
    task = changed(http.put(f"{path}/labels/wave", json=body), 7)
    assert [clip["name"] for clip in task["clips"] if clip["label"] == "wave"] == ["b.mp4"]
    same_scores(http, task_id, {"wave": [B], "jump": [E, A]})
    answer = classify(http, task_id, QUERY)
    assert answer["task_revision"] == 7


def test_only_new_clips_pass_the_network_where_supports_do_not_see_each_other(
    settings: Settings,
    serve_instead: Callable[[Any], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[int] = []
    recognizer = tiny_recognizer("task_adapter_pp", query_context="none")
    features = recognizer.support_features

    def counted(tokens: Any) -> Any:  # noqa: ANN401
        seen.append(len(tokens))
        return features(tokens)

    monkeypatch.setattr(recognizer, "support_features", counted)
    serve_instead(recognizer)
    with serving(settings) as http:
        path = f"/tasks/{register(http, CLIPS)['id']}"
        seen.clear()
        task = changed(http.post(f"{path}/labels/wave/clips", files=query_files(D, E)), 2)
        assert sum(seen) == 2 == task["change"]["encoded_clips"]
        assert task["change"]["encoded_why"] is None
        changed(http.delete(f"{path}/clips/{task['clips'][0]['clip_id']}"), 3)
        changed(http.patch(f"{path}/labels/jump", json={"label": "pour"}), 4)
        task = changed(http.patch(path, json={"name": "n"}), 5)
        assert task["change"]["encoded_clips"] == 0
        assert http.get(f"{path}/diagnosis").json()["task_revision"] == 5
        assert sum(seen) == 2
    with serving(settings) as http:  # from what the store has kept
        seen.clear()
        task = changed(http.post(f"{path}/labels/wave/clips", files=query_files(A)), 6)
        assert task["change"]["encoded_clips"] == 1
        assert sum(seen) == 1


def test_clips_that_see_each_other_are_all_encoded_again_and_the_answer_says_so(
    client: httpx.Client,
) -> None:
    path = f"/tasks/{register(client, CLIPS)['id']}"
    task = changed(client.post(f"{path}/labels/wave/clips", files=query_files(D)), 2)
    assert task["change"]["encoded_clips"] == 4
    assert "with the other clips of its task" in task["change"]["encoded_why"]
    task = changed(client.patch(path, json={"name": "as it was"}), 3)
    assert task["change"]["encoded_clips"] == 0


def test_name_end_and_unknown_policy_are_changed_one_by_one(apart: httpx.Client) -> None:
    path = f"/tasks/{register(apart, CLIPS, name='one', ttl_s='1000')['id']}"
    task = changed(apart.patch(path, json={"name": "other"}), 2)
    assert (task["name"], task["expires_at"] is None) == ("other", False)
    task = changed(apart.patch(path, json={"ttl_s": None}), 3)
    assert (task["name"], task["expires_at"]) == ("other", None)
    for below, unknown in ((1.0, True), (-1.0, False)):
        changed(apart.patch(path, json={"unknown_below": below}), 4 if unknown else 5)
        result = classify(apart, path.rpartition("/")[2], QUERY)["results"][0]
        assert (result["threshold"], result["unknown"]) == (below, unknown)
    task = changed(apart.patch(path, json={"unknown_below": None, "name": None}), 6)
    assert (task["unknown_below"], task["name"]) == (None, None)
    assert apart.get(path).json() == {k: v for k, v in task.items() if k != "change"}


def test_words_of_one_label_are_the_client_s_and_go_back(apart: httpx.Client) -> None:
    path = f"/tasks/{register(apart, CLIPS)['id']}"
    words = ["The wave begins.", "The jump goes on.", "The jump ends."]
    task = changed(apart.put(f"{path}/labels/WAVE/descriptions", json={"descriptions": words}), 2)
    assert task["labels"][1]["descriptions"] == words
    assert [label["text_source"] for label in task["labels"]] == ["template", "client"]
    assert task["text"] == "mixed"
    task = changed(apart.patch(f"{path}/labels/wave", json={"label": "pour"}), 3)
    assert task["labels"][1]["descriptions"] == words  # a client's sentences stay
    task = changed(apart.put(f"{path}/labels/pour/descriptions", json={"descriptions": None}), 4)
    assert task["labels"][1]["descriptions"][0] == "The pour begins."
    assert task["text"] == "template"


def test_a_change_is_made_on_the_revision_that_it_is_meant_for(apart: httpx.Client) -> None:
    path = f"/tasks/{register(apart, CLIPS)['id']}"
    clip = apart.get(path).json()["clips"][0]["clip_id"]
    changed(apart.patch(path, json={"name": "a"}, headers={"if-match": '"1"'}), 2)
    asked: list[tuple[str, str, dict[str, Any]]] = [
        ("PATCH", path, {"json": {"name": "b"}}),
        ("DELETE", path, {}),
        ("DELETE", f"{path}/clips/{clip}", {}),
        ("DELETE", f"{path}/labels/wave", {}),
        ("PATCH", f"{path}/labels/wave", {"json": {"label": "pour"}}),
        ("PUT", f"{path}/labels/wave/descriptions", {"json": {"descriptions": None}}),
        ("PUT", f"{path}/labels/pour", {"files": query_files(D)}),
        ("POST", f"{path}/labels/wave/clips", {"files": query_files(D)}),
    ]
    for verb, where, body in asked:
        for stale in ('"1"', 'W/"2"', '"x"', '"1", "3"'):
            answer = apart.request(verb, where, headers={"if-match": stale}, **body)
            assert problem(answer, 412, "revision-stale")["revision"] == 2
            assert answer.headers["etag"] == '"2"'
    wrong = apart.patch(path, json={"name": "b"}, headers={"if-match": "2"})
    assert "quotes" in problem(wrong, 422, "invalid-request")["detail"]
    assert apart.get(path).json()["revision"] == 2
    changed(apart.patch(path, json={"name": "b"}, headers={"if-match": '"7", "2"'}), 3)
    changed(apart.patch(path, json={"name": "c"}, headers={"if-match": "*"}), 4)
    assert apart.delete(path, headers={"if-match": '"4"'}).status_code == 204
    assert apart.delete(path, headers={"if-match": '"4"'}).status_code == 204


def test_what_cannot_be_changed_is_refused_and_changes_nothing(apart: httpx.Client) -> None:
    path = f"/tasks/{register(apart, CLIPS)['id']}"
    before = apart.get(path).json()
    jump, _, wave = (clip["clip_id"] for clip in before["clips"])
    nobody = "/tasks/" + "0" * 32
    refused: list[tuple[str, str, dict[str, Any], int, str]] = [
        ("DELETE", f"{path}/clips/nothing", {}, 404, "clip-not-found"),
        ("GET", f"{path}/clips/nothing/frames", {}, 404, "clip-not-found"),
        ("DELETE", f"{path}/clips/{wave}", {}, 409, "last-clip"),
        ("DELETE", f"{path}/labels/wave", {}, 409, "last-labels"),
        ("DELETE", f"{path}/labels/dance", {}, 404, "label-not-found"),
        ("DELETE", f"{path}/labels/%20", {}, 422, "label-empty"),
        ("PATCH", f"{path}/labels/dance", {"json": {"label": "x"}}, 404, "label-not-found"),
        ("PATCH", f"{path}/labels/wave", {"json": {"label": "JUMP"}}, 422, "label-duplicate"),
        ("PATCH", f"{path}/labels/wave", {"json": {"label": " "}}, 422, "label-empty"),
        ("PATCH", f"{path}/labels/wave", {"json": {}}, 422, "invalid-request"),
        ("PATCH", path, {"json": {}}, 422, "invalid-request"),
        ("PATCH", path, {"json": {"ttl_s": 0}}, 422, "invalid-request"),
        ("PATCH", path, {"json": {"unknown_below": 2}}, 422, "invalid-request"),
        ("PATCH", path, {"json": {"labels": []}}, 422, "unknown-field"),
        ("PATCH", path, {"files": query_files(A)}, 415, "media-type-not-supported"),
        ("PATCH", nobody, {"json": {"name": "x"}}, 404, "task-not-found"),
        ("POST", f"{nobody}/labels/wave/clips", {"files": query_files(A)}, 404, "task-not-found"),
        (
            "PUT",
            f"{path}/labels/wave/descriptions",
            {"json": {"descriptions": ["one"]}},
            422,
            "description-invalid",
        ),
        (
            "PUT",
            f"{path}/labels/dance/descriptions",
            {"json": {"descriptions": None}},
            404,
            "label-not-found",
        ),
        ("POST", f"{path}/labels/dance/clips", {"files": query_files(A)}, 404, "label-not-found"),
        (
            "POST",
            f"{path}/labels/wave/clips",
            {"files": query_files(*[DAMAGED])},
            422,
            "clip-undecodable",
        ),
        ("POST", f"{path}/labels/wave/clips", {"json": {"clips": []}}, 422, "invalid-request"),
        (
            "POST",
            f"{path}/labels/wave/clips",
            {"files": [("allow_partial", (None, "yes"))]},
            422,
            "label-without-clips",
        ),
        (
            "POST",
            f"{path}/labels/wave/clips",
            {"files": [*query_files(A), ("descriptions", (None, "[]"))]},
            422,
            "unknown-field",
        ),
        ("PUT", f"{path}/labels/x", {"files": query_files(*[A] * 17)}, 422, "too-many-clips"),
        (
            "POST",
            f"{path}/labels/jump/clips",
            {"files": query_files(*[A] * 15)},
            422,
            "too-many-clips",
        ),
    ]
    for verb, where, body, status, code in refused:
        problem(apart.request(verb, where, **body), status, code)
    assert apart.get(path).json() == before
    assert jump


def test_clips_that_cannot_be_used_are_left_out_where_that_is_allowed(apart: httpx.Client) -> None:
    path = f"/tasks/{register(apart, CLIPS)['id']}"
    files = [*query_files(D), ("clip", ("bad.mp4", DAMAGED, "video/mp4"))]
    answer = apart.post(
        f"{path}/labels/wave/clips", files=[*files, ("allow_partial", (None, "true"))]
    )
    task = changed(answer, 2)
    assert len(task["change"]["added_clips"]) == 1
    (refused,) = task["change"]["refused_clips"]
    assert (refused["index"], refused["name"], refused["label"]) == (1, "bad.mp4", "wave")


def test_the_pictures_of_a_clip_are_shown_side_by_side(
    apart: httpx.Client, pictures: list[bytes]
) -> None:
    frames = [base64_of(picture) for picture in pictures]
    labels = [
        {"label": "jump", "clips": [{"frames": frames}]},
        {"label": "wave", "clips": [{"video": base64_of(C)}]},
    ]
    task = apart.post("/tasks", json={"labels": labels}).json()
    clip = task["clips"][0]
    answer = apart.get(f"/tasks/{task['id']}/clips/{clip['clip_id']}/frames")
    assert answer.headers["content-type"] == "image/jpeg"
    strip = np.asarray(Image.open(io.BytesIO(answer.content)))
    side = strip.shape[0]
    assert strip.shape == (side, side * len(clip["frames_s"]), 3)
    firsts = [strip[:, k * side : (k + 1) * side] for k in (0, 7)]
    assert np.abs(firsts[0].astype(int) - firsts[1]).mean() > 10  # pictures of their own

    path = f"/tasks/{task['id']}/clips/{task['clips'][1]['clip_id']}/frames"
    whole, same, small = (
        apart.get(path, params=width) for width in ({}, {"width": 1024}, {"width": 16})
    )
    sizes = [Image.open(io.BytesIO(each.content)).size for each in (whole, same, small)]
    assert sizes == [(8 * side, side), (8 * side, side), (8 * 16, 16)]
    problem(apart.get(path, params={"width": 15}), 422, "invalid-request")


def test_pictures_that_are_at_hand_are_not_sent_again_and_never_to_others(
    apart: httpx.Client,
) -> None:
    task = register(apart, CLIPS)
    paths = [f"/tasks/{task['id']}/clips/{clip['clip_id']}/frames" for clip in task["clips"][:2]]
    first, other = (apart.get(path, params={"width": 96}) for path in paths)
    tag = first.headers["etag"]
    assert tag != other.headers["etag"]
    assert first.headers["cache-control"] == "private, no-cache"
    again = apart.get(paths[0], params={"width": 96}, headers={"if-none-match": tag})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert apart.get(paths[0], headers={"if-none-match": tag}).status_code == 200
    apart.delete(f"/tasks/{task['id']}").raise_for_status()
    gone = apart.get(paths[0], params={"width": 96}, headers={"if-none-match": tag})
    problem(gone, 404, "task-not-found")


def test_a_query_answers_by_one_revision_while_the_task_changes(apart: httpx.Client) -> None:
    task = register(apart, CLIPS)
    story = change_for([apart], task["id"], writers=3, readers=2, seconds=0.5, least=3)
    check(story, task, apart.get(f"/tasks/{task['id']}").json())
    assert len(story.changes) >= 3
    assert len(story.answers) >= 3


def test_two_replicas_lose_no_change_of_many_writers(settings: Settings, tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "checkpoint", query_context="none")
    with redis_server(tmp_path / "redis") as server:
        shared = settings.model_copy(update={"store": server.url, "checkpoint": str(checkpoint)})
        with serving(shared) as one, serving(shared) as other:
            task = register(one, CLIPS)
            story = change_for([one, other], task["id"], writers=6, readers=2, seconds=1.0, least=6)
            check(story, task, other.get(f"/tasks/{task['id']}").json())
            last = one.get(f"/tasks/{task['id']}").json()
            assert last == other.get(f"/tasks/{task['id']}").json()
            assert len(story.changes) >= 6
            here, there = (
                scores(classify(replica, task["id"], QUERY))[0] for replica in (one, other)
            )
            for label, numbers in here.items():
                assert there[label] == pytest.approx(numbers, abs=1e-5)
