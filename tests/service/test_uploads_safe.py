"""A 202 leaves when the uploads are safe; their clips are decoded behind it."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.app import create_app
from service.container import Service
from service.errors import DecoderBusyError
from service.settings import Settings
from service.tasks import arrivals
from service.tasks.allowance import NOTHING, Ledger
from tests.held_decoding import decoding_held
from tests.serving import (
    classify,
    moving_clip,
    problem,
    query_files,
    register,
    scores,
    serving_app,
    support_files,
)

CLIPS = {"jump": [moving_clip(1), moving_clip(2)], "wave": [moving_clip(3), moving_clip(4)]}
AT_ONCE = {"prefer": "wait=0"}
QUERY = moving_clip(5)


def damaged(clip: bytes) -> bytes:
    """Keep the headers of a clip and blacken its pictures."""
    start = clip.index(b"mdat") + 4
    length = int.from_bytes(clip[start - 8 : start - 4], "big") - 8
    return clip[:start] + bytes(length) + clip[start + length :]


DAMAGED = damaged(moving_clip(6))


class Served:
    """One service of this module, and the way behind its back."""

    def __init__(self, client: httpx.Client, service: Service, ledger: Ledger, file: Path) -> None:
        self.client = client
        self.service = service
        self.ledger = ledger
        self.file = file

    def accepted(self, clips: dict[str, list[bytes]], **data: str) -> str:
        """Register without waiting."""
        files = support_files(clips)
        answer = self.client.post("/tasks", files=files, data=data, headers=AT_ONCE)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def task(self, task_id: str) -> dict[str, Any]:
        return dict(self.client.get(f"/tasks/{task_id}").json())

    def until(self, task_id: str, **fields: object) -> dict[str, Any]:
        """Wait until a task has these fields."""
        late = time.monotonic() + 20
        while True:
            task = self.task(task_id)
            if {name: task.get(name) for name in fields} == fields:
                return task
            assert time.monotonic() < late, task
            time.sleep(0.01)

    def stores(self, clip: bytes) -> bool:
        """Tell whether a stretch from the middle of an upload is anywhere in the store."""
        middle = len(clip) // 2
        kept = [path.read_bytes() for path in self.file.parent.glob(self.file.name + "*")]
        return any(clip[middle : middle + 40] in part for part in kept)

    def until_nothing_is_left(self, clip: bytes) -> None:
        """Wait until the store has nothing of an upload, and no request holds anything."""
        late = time.monotonic() + 20
        while self.stores(clip) or self.ledger.held != NOTHING:
            assert time.monotonic() < late, self.ledger.held
            time.sleep(0.02)


@pytest.fixture(scope="module")
def served(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    file = tmp_path_factory.mktemp("uploads") / "kshot.db"
    settings = Settings(
        checkpoint=str(checkpoint), store=f"sqlite:{file}", threads=1, decode_workers=1
    )
    app = create_app(settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrivals, "LOOK_S", 0.2)
        patch.setattr(arrivals, "LEFT_S", 1.0)
        with serving_app(app) as client:
            yield Served(client, app.state.service, app.state.ledger, file)


def test_a_202_leaves_before_the_first_clip_is_decoded_and_progress_counts_decoding(
    served: Served,
) -> None:
    with decoding_held(served.service.pool) as gate:
        task_id = served.accepted(CLIPS)
        assert served.stores(CLIPS["wave"][1])
        waiting = served.until(task_id, status="processing", progress=0.0, revision=1)
        assert [clip["codec"] for clip in waiting["clips"]] == [None] * 4
        assert [clip["name"] for clip in waiting["clips"]] == ["0.mp4", "1.mp4"] * 2
        assert [(x["label"], x["clips"]) for x in waiting["labels"]] == [("jump", 2), ("wave", 2)]
        gate.let(1)
        served.until(task_id, progress=1 / 8)
        gate.let(1)
        served.until(task_id, progress=2 / 8)
        asked = {"url": f"/tasks/{task_id}/classify", "files": query_files(QUERY)}
        problem(served.client.post(**asked, headers=AT_ONCE), 409, "not-ready")
        with ThreadPoolExecutor(1) as threads:
            answer = threads.submit(classify, served.client, task_id, QUERY)
            gate.let(3)  # the two that are left, and the query
            behind = answer.result(timeout=20)
    ready = served.until(task_id, status="ready", progress=1.0, revision=2)
    whole = register(served.client, CLIPS)
    assert [clip["frames_s"] for clip in ready["clips"]] == [
        clip["frames_s"] for clip in whole["clips"]
    ]
    assert scores(behind) == scores(classify(served.client, whole["id"], QUERY))
    served.until_nothing_is_left(CLIPS["wave"][1])


def test_a_damaged_clip_fails_an_accepted_task_which_names_it(served: Served) -> None:
    task_id = served.accepted({**CLIPS, "pour": [CLIPS["jump"][0], DAMAGED]})
    task = served.until(task_id, status="failed")
    assert "Clip 5 ('1.mp4', label 'pour')" in task["failure"]
    assert [(c["index"], c["name"], c["label"]) for c in task["refused_clips"]] == [
        (5, "1.mp4", "pour")
    ]
    assert task["expires_at"] is not None
    answer = served.client.post(f"/tasks/{task_id}/classify", files=query_files(QUERY))
    assert "label 'pour'" in problem(answer, 409, "task-failed")["detail"]
    served.until_nothing_is_left(CLIPS["jump"][0])
    assert served.client.delete(f"/tasks/{task_id}").status_code == 204


def test_an_accepted_task_leaves_a_damaged_clip_out_where_it_may_and_says_so(
    served: Served,
) -> None:
    sent = {**CLIPS, "pour": [b"no video", DAMAGED, CLIPS["jump"][0]]}
    task_id = served.accepted(sent, allow_partial="true")
    task = served.until(task_id, status="ready")
    told = [(clip["index"], clip["name"]) for clip in task["refused_clips"]]
    assert told == [(4, "0.mp4"), (5, "1.mp4")]
    assert [clip["clip_id"] for clip in task["clips"]][-1] == "c0006"
    classify(served.client, task_id, QUERY)
    lost = served.accepted({**CLIPS, "pour": [DAMAGED]}, allow_partial="true")
    assert "'pour' keeps no clip" in served.until(lost, status="failed")["failure"]


def test_deleting_a_task_while_it_is_decoded_leaves_nothing(served: Served) -> None:
    with decoding_held(served.service.pool) as gate:
        task_id = served.accepted(CLIPS)
        gate.let(1)
        served.until(task_id, progress=1 / 8)
        assert served.client.delete(f"/tasks/{task_id}").status_code == 204
        problem(served.client.get(f"/tasks/{task_id}"), 404, "task-not-found")
        served.until_nothing_is_left(CLIPS["wave"][0])


def test_uploads_over_the_limit_are_decoded_before_the_answer(served: Served) -> None:
    tasks = served.service.tasks
    limits = tasks.limits
    tasks.limits = replace(limits, stored_upload_bytes=100)
    try:
        with decoding_held(served.service.pool) as gate, ThreadPoolExecutor(1) as threads:
            answer = threads.submit(served.accepted, CLIPS)
            gate.let(3)
            with pytest.raises(TimeoutError):
                answer.result(timeout=0.5)
            assert not served.stores(CLIPS["wave"][0])
            gate.let(1)
            task = served.task(answer.result(timeout=20))
            assert task["revision"] == 1
            assert task["progress"] >= 0.5
    finally:
        tasks.limits = limits


def test_a_machine_without_time_is_tried_again_and_named_in_the_end(served: Served) -> None:
    with decoding_held(served.service.pool) as gate:
        gate.error = DecoderBusyError("The machine is busy.")
        task_id = served.accepted(CLIPS)
        while not gate.asked:
            time.sleep(0.01)
        gate.error = None
        gate.let(8)
        served.until(task_id, status="ready")
        gate.error = DecoderBusyError("The machine is busy.")
        given_up = served.accepted(CLIPS)
        task = served.until(given_up, status="failed")
    assert "The machine is busy" in task["failure"]
    assert task["refused_clips"] == []
