"""Another checkpoint takes the place of the one that is served, over HTTP, on a real Redis."""

import asyncio
import logging
import shutil
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from service import admin
from service.app import create_app
from service.container import Service
from service.errors import DeviceMemoryError
from service.settings import Settings
from tests.faults.load import until
from tests.redis_server import redis_server
from tests.serving import (
    classify,
    moving_clip,
    problem,
    register,
    scores,
    serving,
    serving_app,
    tiny_checkpoint,
)

CLIPS = {"jump": [moving_clip(1), moving_clip(2)], "wave": [moving_clip(3)]}
QUERY = moving_clip(8)
PLACE = "/v1/admin/model"


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of checkpoints: two good ones, one of longer clips, and a torn one."""
    folder = tmp_path_factory.mktemp("models")
    tiny_checkpoint(folder / "second", seed=1)
    tiny_checkpoint(folder / "third", seed=2)
    tiny_checkpoint(folder / "longer", frames=4)
    torn = shutil.copytree(folder / "second", folder / "torn") / "weights.safetensors"
    torn.write_bytes(torn.read_bytes()[:-100])
    (folder / "notes").mkdir()
    return folder


@dataclass
class Replicas:
    """Two on one Redis: one is told to serve others, and the other is not."""

    one: httpx.Client
    app: FastAPI
    other: httpx.Client

    def swap(self) -> dict[str, Any]:
        return dict(self.one.get(PLACE).json()["swap"] or {})

    def ended(self) -> dict[str, Any]:
        until(lambda: self.swap()["state"] in ("done", "failed"), "the end of the swap")
        return self.swap()


@pytest.fixture(scope="module")
def replicas(
    checkpoint: Path, models_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Replicas]:
    with redis_server(tmp_path_factory.mktemp("redis") / "redis") as server:
        settings = Settings(
            checkpoint=str(checkpoint),
            store=server.url,
            models_dir=models_dir,
            threads=1,
            decode_workers=1,
        )
        app = create_app(settings)
        with serving_app(app) as one, serving(settings) as other:
            yield Replicas(one, app, other)


@pytest.mark.parametrize("name", ["fourth", "notes", "../models", "/etc", "timm:vit", "clip", ""])
def test_what_the_operator_has_not_allowed_is_not_served(replicas: Replicas, name: str) -> None:
    answer = replicas.one.post(PLACE, json={"checkpoint": name})
    told = problem(answer, 422, "checkpoint-not-allowed" if name else "invalid-request")
    assert not name or "longer, second, third, torn, compact, causal" in told["detail"]


def test_a_torn_checkpoint_is_refused_at_once(replicas: Replicas) -> None:
    answer = replicas.one.post(PLACE, json={"checkpoint": "torn"})
    assert "torn cannot be read" in problem(answer, 422, "checkpoint-unusable")["detail"]


def test_a_checkpoint_of_another_shape_leaves_the_older_one_serving(replicas: Replicas) -> None:
    before = replicas.one.get(PLACE).json()["model_revision"]
    task = register(replicas.one, CLIPS)
    assert replicas.one.post(PLACE, json={"checkpoint": "longer"}).status_code == 202
    ended = replicas.ended()
    assert ended["state"] == "failed"
    assert "takes 4 pictures of 16 pixels a clip, and 8 pictures of 16" in ended["failure"]
    assert classify(replicas.one, task["id"], QUERY)["model_revision"] == before


def test_the_older_model_answers_for_a_task_until_the_new_one_has_it_ready_and_then_goes(
    replicas: Replicas,
) -> None:
    one, models = replicas.one, replicas.app.state.models
    known = register(one, CLIPS)
    before = classify(one, known["id"], QUERY)
    engine, switched = weakref.ref(models.current.engine), models.switched
    weights = weakref.ref(models.current.choice.runtime)

    def hold(line: Service) -> None:
        switched(line)
        line.tasks.supports.encoding.idle.clear()  # as while a request waits for a rebuild

    models.switched = hold
    assert one.post(PLACE, json={"checkpoint": "second"}).status_code == 202
    until(lambda: replicas.swap()["state"] == "encoding", "the switch")
    models.switched = switched
    problem(one.post(PLACE, json={"checkpoint": "third"}), 409, "model-swap-running")
    new = one.get(PLACE).json()["model_revision"]
    assert replicas.swap()["encoded"] == 0
    assert scores(classify(one, known["id"], QUERY)) == scores(before)
    assert register(one, CLIPS)["model_revision"] == new != before["model_revision"]

    line = models.current
    line.engine._loop.call_soon_threadsafe(line.tasks.supports.encoding.idle.set)
    ended = replicas.ended()
    assert (ended["state"], ended["left"]) == ("done", 0)
    assert ended["encoded"] == ended["tasks"] >= 2
    after = classify(one, known["id"], QUERY)
    assert (after["model_revision"], after["task_revision"]) == (new, before["task_revision"])
    assert scores(after) != scores(before)
    del line
    until(lambda: engine() is None and weights() is None, "the memory of the older model")
    # the other replica was not told, and answers for the same tasks
    there = classify(replicas.other, known["id"], QUERY)
    assert there["model_revision"] == before["model_revision"]
    assert scores(there)[0]["jump"] == pytest.approx(scores(before)[0]["jump"], abs=1e-5)


def swapped(
    replicas: Replicas, name: str, prepared: Callable[[Service], None] = lambda _: None
) -> dict[str, Any]:
    """Serve another checkpoint, its line changed at the switch; returns how that ended."""
    models = replicas.app.state.models
    switched = models.switched

    def prepare(line: Service) -> None:
        switched(line)
        prepared(line)

    models.switched = prepare
    try:
        answer = replicas.one.post(PLACE, json={"checkpoint": name})
        assert answer.status_code == 202, answer.text
        return replicas.ended()
    finally:
        models.switched = switched


def test_a_refused_checkpoint_leaves_what_is_told_of_the_last_swap(replicas: Replicas) -> None:
    ended = swapped(replicas, "second")
    assert ended["state"] == "done"
    problem(replicas.one.post(PLACE, json={"checkpoint": "fourth"}), 422, "checkpoint-not-allowed")
    assert replicas.swap() == ended


def test_a_reader_that_stalls_keeps_the_older_model_and_stops_no_other_swap(
    replicas: Replicas,
) -> None:
    old = replicas.app.state.models.current
    engine = weakref.ref(old.engine)
    old.requests += 1  # as while somebody does not read an answer to its end
    assert swapped(replicas, "third")["state"] == "done"
    assert swapped(replicas, "second")["state"] == "done"
    old.requests -= 1
    del old
    until(lambda: engine() is None, "the memory of the older model")


@pytest.mark.parametrize("moment", ["before", "between"])
def test_what_another_replica_deletes_on_the_way_stays_in_no_memory(
    replicas: Replicas, moment: str
) -> None:
    """Before its turn comes, or between its encoding and the look at whether it changed."""
    task = register(replicas.one, CLIPS)["id"]
    classify(replicas.one, task, QUERY)
    old = replicas.app.state.models.current
    assert old.tasks.supports.cache.newest(task) is not None
    old.requests += 1

    def delete() -> None:
        assert replicas.other.delete(f"/tasks/{task}").status_code == 204

    def prepare(line: Service) -> None:
        encoded = line.tasks.supports.encoded

        async def encode(task_id: str) -> int:
            if task_id == task and moment == "before":
                delete()
            revision = await encoded(task_id)
            if task_id == task:
                delete()
            return revision

        line.tasks.supports.encoded = encode  # type: ignore[method-assign]

    ended = swapped(replicas, "third", prepare)
    assert (ended["state"], ended["left"], ended["encoded"]) == ("done", 0, ended["tasks"])
    for line in (old, replicas.app.state.models.current):
        assert line.tasks.supports.cache.newest(task) is None
    old.requests -= 1


def test_a_fault_that_passes_leaves_no_task_with_the_older_model(replicas: Replicas) -> None:
    task = register(replicas.one, CLIPS)["id"]
    failures = 5

    def prepare(line: Service) -> None:
        encoded = line.tasks.supports.encoded

        async def encode(task_id: str) -> int:
            nonlocal failures
            if task_id == task and failures:
                failures -= 1
                raise DeviceMemoryError("The device has no memory for this.")
            return await encoded(task_id)

        line.tasks.supports.encoded = encode  # type: ignore[method-assign]

    ended = swapped(replicas, "second", prepare)
    assert (ended["state"], ended["left"]) == ("done", 0)
    new = replicas.one.get(PLACE).json()["model_revision"]
    assert classify(replicas.one, task, QUERY)["model_revision"] == new


def test_a_fault_that_stays_ends_the_swap_and_the_older_model_keeps_the_task(
    replicas: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.tasks.swapping.swap.GIVE_UP_S", 0.3)
    task = register(replicas.one, CLIPS)["id"]
    before = classify(replicas.one, task, QUERY)

    def prepare(line: Service) -> None:
        async def failing(task_id: str) -> int:
            raise DeviceMemoryError(f"The device has no memory for {task_id}.")

        line.tasks.supports.encoded = failing  # type: ignore[method-assign]

    ended = swapped(replicas, "third", prepare)
    assert (ended["state"], ended["encoded"], ended["left"]) == ("done", 0, ended["tasks"])
    assert scores(classify(replicas.one, task, QUERY)) == scores(before)
    assert swapped(replicas, "second")["left"] == 0  # a later checkpoint sees to them


def test_a_failure_after_the_switch_says_that_the_new_model_answers(
    replicas: Replicas, caplog: pytest.LogCaptureFixture
) -> None:
    register(replicas.one, CLIPS)

    def prepare(line: Service) -> None:
        async def broken(task_id: str) -> int:
            raise ZeroDivisionError(task_id)

        line.tasks.supports.encoded = broken  # type: ignore[method-assign]

    with caplog.at_level(logging.WARNING, "kshot.swap"):
        ended = swapped(replicas, "third", prepare)
    assert ended["state"] == "failed"
    assert ended["failure"].startswith("The new checkpoint answers")
    assert replicas.one.get(PLACE).json()["model_revision"] == ended["model_revision"]
    assert len([one for one in caplog.records if one.name == "kshot.swap"]) == 1
    assert swapped(replicas, "second")["state"] == "done"  # which sees to the tasks that were left


def test_supports_that_nothing_has_room_for_are_not_encoded_in_vain(replicas: Replicas) -> None:
    task = register(replicas.one, CLIPS)["id"]
    encoded: list[str] = []

    def prepare(line: Service) -> None:
        supports = line.tasks.supports
        again = supports.encoding.again

        async def noted(record: Any, *arguments: Any) -> Any:  # noqa: ANN401
            encoded.append(record.task_id)
            return await again(record, *arguments)

        supports.cache.max_bytes = supports.kept.most_bytes = 0
        supports.encoding.again = noted  # type: ignore[method-assign]

    assert swapped(replicas, "third", prepare)["state"] == "done"
    assert not encoded
    new = replicas.one.get(PLACE).json()["model_revision"]
    assert classify(replicas.one, task, QUERY)["model_revision"] == new


def test_the_operators_folder_is_read_beside_the_event_loop(replicas: Replicas) -> None:
    models, reading = replicas.app.state.models, []
    names = models.allowed.names
    models.allowed.names = lambda: reading.append(threading.get_ident()) or names()
    replicas.one.get(PLACE)
    models.allowed.names = names

    async def serving() -> int:
        return threading.get_ident()

    loop = models.current.engine._loop
    assert reading != [asyncio.run_coroutine_threadsafe(serving(), loop).result(20)]


def test_nothing_is_swapped_where_the_operator_names_no_folder(client: httpx.Client) -> None:
    answer = client.post(PLACE, json={"checkpoint": "compact"})
    assert "KSHOT_MODELS_DIR" in problem(answer, 422, "checkpoint-not-allowed")["detail"]


def told(
    *words: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, list[str], str]:
    """Run `kshot-admin model`; returns its status, its lines and what it complains of."""
    monkeypatch.setattr("sys.argv", ["kshot-admin", "model", *map(str, words)])
    status, said = admin.main(), capsys.readouterr()
    return status, said.out.splitlines(), said.err


def test_the_command_serves_a_checkpoint_at_each_address_and_tells_how_it_ended(
    replicas: Replicas, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = partial(told, monkeypatch=monkeypatch, capsys=capsys)
    register(replicas.one, CLIPS)
    url = str(replicas.one.base_url)
    twice = ("--url", url, "--url", url)
    status, lines, _ = asked(*twice, "serve", "second")
    ends = [line for line in lines if "\tdone" in line]
    assert (status, len(ends)) == (0, 2)
    tasks = replicas.swap()["tasks"]
    assert ends[1] == f"{url}\tsecond\tdone\t{tasks} of {tasks} tasks"
    status, lines, complaint = asked(*twice, "serve", "longer")
    assert (status, len([line for line in lines if "\tfailed" in line])) == (1, 1)
    assert "takes 4 pictures of 16 pixels a clip" in lines[-1]
    status, lines, complaint = asked("--url", url, "serve", "fourth")
    assert (status, lines) == (1, [])
    assert complaint.startswith("[checkpoint-not-allowed] ")
    status, lines, _ = asked("--url", url, "show")
    assert (status, len(lines)) == (0, 2)
    assert "\tmay serve longer, second, third, torn, compact, causal" in lines[0]
    for nowhere in ("http://127.0.0.1:9", "nowhere", "http://"):
        status, lines, complaint = asked("--url", nowhere, "show")
        assert (status, lines) == (2, [])
        assert "check --url" in complaint
