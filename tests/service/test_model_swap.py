"""Another checkpoint takes the place of the one that is served, over HTTP, on a real Redis."""

import shutil
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from service.app import create_app
from service.container import Service
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
    assert not name or "longer, second, third, torn, compact" in told["detail"]


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


def test_nothing_is_swapped_where_the_operator_names_no_folder(client: httpx.Client) -> None:
    answer = client.post(PLACE, json={"checkpoint": "compact"})
    assert "KSHOT_MODELS_DIR" in problem(answer, 422, "checkpoint-not-allowed")["detail"]
