"""A task of labels without clips, where text alone decides: zero-shot through HTTP."""

import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from model.backbones.words import split_words
from model.config.fusion import ConvexFusion
from model.episode import EncodedSupport
from model.errors import EpisodeError
from model.recognizer import Recognizer
from model.text import TEMPLATES
from service.app import create_app
from service.settings import Settings
from tests.faults.load import until
from tests.model.tiny import LABELS, TOWERS, WORDS, tiny_recognizer, tiny_text
from tests.serving import (
    base64_of,
    classify,
    moving_clip,
    problem,
    register,
    scores,
    serving,
    serving_app,
    tiny_checkpoint,
)

SAID = LABELS[:3]
TEXT = TOWERS.text
assert TEXT is not None
READS = tuple(sorted({*WORDS, *(w for one in TEMPLATES for w in split_words(one))}))
BACKBONE = replace(TOWERS, text=replace(TEXT, words=READS))


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("alone")
    checkpoint = tiny_checkpoint(folder / "checkpoint", "actionclip_text", backbone=BACKBONE)
    store = f"sqlite:{folder / 'kshot.db'}"
    return Settings(checkpoint=str(checkpoint), store=store, threads=1, decode_workers=1)


@pytest.fixture(scope="module")
def client(settings: Settings) -> Iterator[httpx.Client]:
    with serving(settings) as client:
        yield client


def alone(labels: tuple[str, ...], **given: list[dict[str, str]]) -> dict[str, Any]:
    """Write a task of labels, without clips where none are given."""
    return {"labels": [{"label": label, "clips": given.get(label, [])} for label in labels]}


def named(client: httpx.Client) -> dict[str, Any]:
    answer = client.post("/tasks", json=alone(SAID))
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def test_labels_without_clips_are_ranked_by_their_text(client: httpx.Client) -> None:
    task = named(client)
    assert client.get("/limits").json()["shots"][0] == 0
    answer = classify(client, task["id"], moving_clip(1), moving_clip(2))
    for result in answer["results"]:
        shares = [ranked["score"] for ranked in result["ranking"]]
        assert {ranked["label"] for ranked in result["ranking"]} == set(SAID)
        assert sum(shares) == pytest.approx(1, abs=1e-5)
        assert not result["unknown"]
    assert len({tuple(one.values()) for one in scores(answer)}) == 2
    (single,) = scores(classify(client, task["id"], moving_clip(2)))
    for label, numbers in single.items():
        assert numbers == pytest.approx(scores(answer)[1][label], abs=1e-5)


def test_clips_of_labels_do_not_count_where_text_alone_decides(client: httpx.Client) -> None:
    query = moving_clip(7)
    given = {label: [moving_clip(20 + place)] for place, label in enumerate(SAID)}
    (shown,) = classify(client, register(client, given)["id"], query)["results"]
    (told,) = classify(client, named(client)["id"], query)["results"]
    want = {ranked["label"]: ranked["score"] for ranked in shown["ranking"]}
    got = {ranked["label"]: ranked["score"] for ranked in told["ranking"]}
    assert got == pytest.approx(want, abs=1e-5)


def test_a_task_is_of_labels_with_clips_or_of_labels_without(client: httpx.Client) -> None:
    clip = {"video": base64_of(moving_clip(3))}
    mixed = alone(SAID, **{SAID[0]: [clip]})
    body = problem(client.post("/tasks", json=mixed), 422, "label-without-clips")
    assert repr(SAID[1]) in body["detail"]


def test_labels_alone_stay_so_and_say_that_nothing_can_be_held_out(client: httpx.Client) -> None:
    task, clip = named(client), {"video": base64_of(moving_clip(3))}
    route = f"/tasks/{task['id']}"
    added = client.post(f"{route}/labels/{SAID[0]}/clips", json={"clips": [clip]})
    assert repr(SAID[1]) in problem(added, 422, "label-without-clips")["detail"]
    problem(client.put(f"{route}/labels/sit", json={"clips": [clip]}), 422, "label-without-clips")
    found = client.get(f"{route}/diagnosis").json()
    assert found["leave_one_out"] is None
    assert "told by their text alone" in found["judged_by"]
    assert client.delete(f"{route}/labels/{SAID[2]}").status_code == 200
    (result,) = classify(client, task["id"], moving_clip(4))["results"]
    assert {ranked["label"] for ranked in result["ranking"]} == set(SAID[:2])


def test_a_label_that_the_text_tower_cannot_read_needs_clips(client: httpx.Client) -> None:
    answer = client.post("/tasks", json=alone((*SAID, "zebra")))
    body = problem(answer, 422, "label-without-clips")
    assert "'zebra'" in body["detail"]


def test_a_change_to_text_that_cannot_be_read_is_refused_where_text_alone_decides(
    client: httpx.Client,
) -> None:
    task = named(client)
    route = f"/tasks/{task['id']}/labels/{SAID[0]}"
    for answer in (
        client.patch(route, json={"label": "zebra"}),
        client.put(f"{route}/descriptions", json={"descriptions": ["zebra"]}),
    ):
        assert "zebra" in problem(answer, 422, "label-without-clips")["detail"]
    assert client.get(f"/tasks/{task['id']}").json() == task


def test_scores_after_a_restart_equal_those_before(settings: Settings, tmp_path: Path) -> None:
    own, query = replaced(settings, tmp_path), moving_clip(5)
    with serving(own) as client:
        task = named(client)
        before = scores(classify(client, task["id"], query))
    with serving(own) as client:
        after = scores(classify(client, task["id"], query))
        assert client.get(f"/tasks/{task['id']}").json() == task
    for one, other in zip(before, after, strict=True):
        for label, numbers in one.items():
            assert numbers == pytest.approx(other[label], abs=1e-5)


def replaced(settings: Settings, folder: Path) -> Settings:
    """Return the settings with a store of its own."""
    return settings.model_copy(update={"store": f"sqlite:{folder / 'kshot.db'}"})


def supported(recognizer: Recognizer, text_NAE: torch.Tensor | None) -> EncodedSupport:
    assert text_NAE is not None
    with torch.inference_mode():
        return recognizer.support_of_text(text_NAE)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_method_that_compares_clips_wants_some(share: float) -> None:
    recognizer = tiny_recognizer("actionclip", fusion=ConvexFusion(text_share=share))
    assert not recognizer.text_alone
    with pytest.raises(EpisodeError, match="give each of two classes or more a clip"):
        supported(recognizer, tiny_text(recognizer, SAID))


def test_one_label_alone_is_no_task() -> None:
    recognizer = tiny_recognizer("actionclip_text")
    with pytest.raises(EpisodeError, match="1 classes"):
        supported(recognizer, tiny_text(recognizer, SAID[:1]))


def test_a_task_that_another_model_cannot_encode_stays_with_the_older_one_until_it_is_deleted(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.tasks.swapping.swap.TEND_S", 0.1)
    tiny_checkpoint(tmp_path / "models" / "second", backbone=BACKBONE)
    changed = {"store": f"sqlite:{tmp_path / 'kshot.db'}", "models_dir": tmp_path / "models"}
    app = create_app(settings.model_copy(update=changed))
    with serving_app(app) as client:
        task, query = named(client), moving_clip(3)
        before = classify(client, task["id"], query)
        swapped = client.post("/v1/admin/model", json={"checkpoint": "second"})
        assert swapped.status_code == 202

        def swap() -> dict[str, Any]:
            return dict(client.get("/v1/admin/model").json()["swap"])

        until(lambda: swap()["state"] == "done", "the other model")
        assert (swap()["left"], swap()["encoded"]) == (1, 0)
        assert scores(classify(client, task["id"], query)) == scores(before)
        clips = {"jump": [moving_clip(1)], "wave": [moving_clip(2)]}
        assert register(client, clips)["model_revision"] != before["model_revision"]
        old = weakref.ref(app.state.models.elsewhere[task["id"]].engine)
        assert client.delete(f"/tasks/{task['id']}").status_code == 204
        until(lambda: old() is None, "the memory of the older model")
        assert not app.state.models.elsewhere
