"""Diagnosis through real HTTP: what harms a task has a code, a place, a sentence and a remedy."""

from typing import Any

import httpx
import pytest

from tests.serving import base64_of, moving_clip, problem, query_files, register

A, B, C, D, E, F = (moving_clip(seed) for seed in range(1, 7))


def diagnosed(client: httpx.Client, task_id: str) -> dict[str, Any]:
    """Ask for a diagnosis, which must succeed."""
    answer = client.get(f"/tasks/{task_id}/diagnosis")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def codes(found: dict[str, Any]) -> set[tuple[str, str | None]]:
    """List the findings by code and label."""
    return {(each["code"], each["label"]) for each in found["findings"]}


def test_copies_stills_and_lone_clips_are_found_and_said(
    client: httpx.Client, pictures: list[bytes]
) -> None:
    still = {"frames": [base64_of(pictures[0])] * 8, "name": "still.jpg"}
    video = [{"video": base64_of(clip)} for clip in (A, B, C, A)]
    labels = [
        {"label": "jump", "clips": [video[0], video[1], still]},
        {"label": "wave", "clips": [video[2], video[3]]},
        {"label": "pour", "clips": [{"video": base64_of(D)}]},
    ]
    task = client.post("/tasks", json={"labels": labels}).json()
    found = diagnosed(client, task["id"])
    assert {("clip-copy", "wave"), ("clip-still", "jump"), ("label-one-clip", "pour")} <= codes(
        found
    )
    copy = next(each for each in found["findings"] if each["code"] == "clip-copy")
    ids = [clip["clip_id"] for clip in task["clips"]]
    assert (copy["clip_id"], copy["others"]) == (ids[4], [ids[0]])
    assert "'jump' under 'wave'" in copy["sentence"]
    for each in found["findings"]:
        assert each["sentence"].endswith(".")
        assert each["remedy"].endswith(".")
    assert found["labels"]["pour"] is None
    assert found["leave_one_out"]["clips"] == 5
    assert 0 <= found["leave_one_out"]["low"] <= found["leave_one_out"]["high"] <= 1
    assert "with the other clips of its task" in found["judged_by"]
    assert [*found["enough"]["measured"]] == ["1", "2"]


def test_a_task_shows_its_diagnosis_in_short_when_asked(client: httpx.Client) -> None:
    task = register(client, {"jump": [A, B], "wave": [C, D]})
    assert client.get(f"/tasks/{task['id']}").json()["diagnosis"] is None
    short = client.get(f"/tasks/{task['id']}", params={"diagnosis": "true"}).json()["diagnosis"]
    long = diagnosed(client, task["id"])
    assert short["leave_one_out"] == long["leave_one_out"]
    assert sum(short["findings"].values()) == len(long["findings"])


def test_a_diagnosis_is_of_the_revision_that_stands(client: httpx.Client) -> None:
    path = f"/tasks/{register(client, {'jump': [A, B], 'wave': [C, D]})['id']}"
    assert diagnosed(client, path[7:])["task_revision"] == 1
    assert client.post(f"{path}/labels/wave/clips", files=query_files(E)).status_code == 200
    found = diagnosed(client, path[7:])
    assert found["task_revision"] == 2
    assert found["leave_one_out"]["clips"] == 5


@pytest.mark.parametrize("task_id", ["0" * 32, "%20"])
def test_no_task_has_no_diagnosis(client: httpx.Client, task_id: str) -> None:
    problem(client.get(f"/tasks/{task_id}/diagnosis"), 404, "task-not-found")
