"""Where an answer was seen: asked for in both forms, of few clips, and nothing else changes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch

from model.episode import EncodedSupport
from model.errors import MethodError
from service.app import create_app
from service.engine.runtimes.protocol import Runtime
from service.limits import MOST_EXPLAINED
from service.settings import Settings
from tests.serving import base64_of, moving_clip, problem, query_files, register, serving_app

EXPLAIN = {"explain": "true"}


@pytest.fixture(scope="module")
def path(client: httpx.Client, clips: dict[str, list[bytes]]) -> str:
    return f"/v1/tasks/{register(client, clips)['id']}/classify"


def results(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["results"]
    return found


def without_saliency(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: each[name] for name in each if name != "saliency"} for each in found]


def test_scores_are_the_same_to_the_last_digit_with_and_without_it(
    client: httpx.Client, path: str
) -> None:
    queries = [moving_clip(100 + number) for number in range(MOST_EXPLAINED)]
    plain = results(client.post(path, files=query_files(*queries)))
    explained = results(client.post(path, files=query_files(*queries), data=EXPLAIN))
    assert without_saliency(explained) == without_saliency(plain)
    assert [each["saliency"] for each in plain] == [None] * MOST_EXPLAINED


def test_it_says_how_and_where_the_label_of_the_answer_was_seen(
    client: httpx.Client, path: str, clip: bytes
) -> None:
    (result,) = results(client.post(path, files=query_files(clip), data=EXPLAIN))
    seen = result["saliency"]
    assert (seen["method"], seen["label"]) == ("gradient", result["label"])
    grid_TSS = np.array(seen["frames"])
    assert grid_TSS.shape == (len(result["frames_s"]), 2, 2)
    assert (grid_TSS.min(), grid_TSS.max()) == (0, 1)


def test_json_asks_for_the_same_and_a_clip_alone_is_seen_as_among_others(
    client: httpx.Client, path: str, clip: bytes
) -> None:
    (alone,) = results(client.post(path, files=query_files(clip), data=EXPLAIN))
    shown = [{"video": base64_of(each)} for each in (moving_clip(7), clip)]
    among = results(client.post(path, json={"clips": shown, "explain": True}))[1]
    assert among["saliency"]["label"] == alone["saliency"]["label"]
    np.testing.assert_allclose(among["saliency"]["frames"], alone["saliency"]["frames"], atol=2e-3)


def test_more_clips_than_are_explained_are_refused_before_they_are_decoded(
    client: httpx.Client, path: str, clip: bytes
) -> None:
    many = [clip] * (MOST_EXPLAINED + 1)
    damaged = [each[:300] for each in many]  # decoding would refuse them otherwise
    shown = [{"video": base64_of(each)} for each in damaged]
    assert client.get("/limits").json()["explained_clips"] == MOST_EXPLAINED
    for answer in (
        client.post(path, files=query_files(*damaged), data=EXPLAIN),
        client.post(path, json={"clips": shown, "explain": True}),
    ):
        assert "leave out explain" in problem(answer, 422, "too-many-clips")["detail"]
    assert len(results(client.post(path, files=query_files(*many)))) == len(many)


def test_a_clip_that_cannot_be_read_is_not_explained(
    client: httpx.Client, path: str, clip: bytes
) -> None:
    read, damaged = results(client.post(path, files=query_files(clip, clip[:300]), data=EXPLAIN))
    assert read["saliency"] is not None
    assert (damaged["saliency"], damaged["error"]["status"]) == (None, 422)


def test_neither_true_nor_false_is_refused(client: httpx.Client, path: str, clip: bytes) -> None:
    answer = client.post(path, files=query_files(clip), data={"explain": "please"})
    assert "true or false" in problem(answer, 422, "invalid-request")["detail"]


def test_the_document_describes_both_forms(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    body = document["paths"]["/v1/tasks/{task_id}/classify"]["post"]["requestBody"]["content"]
    assert body["multipart/form-data"]["schema"]["properties"]["explain"]["type"] == "boolean"
    assert (
        document["components"]["schemas"]["QueryBody"]["properties"]["explain"]["default"] is False
    )
    assert "SaliencyView" in document["components"]["schemas"]


@pytest.fixture
def watched(
    checkpoint: Path, clips: dict[str, list[bytes]], tmp_path: Path
) -> Iterator[tuple[httpx.Client, str, Runtime]]:
    """A service of one's own, the path of its task, and what runs its model."""
    store = f"sqlite:{tmp_path / 'store'}"
    app = create_app(Settings(checkpoint=str(checkpoint), store=store, threads=1, decode_workers=1))
    with serving_app(app) as http:
        path = f"/v1/tasks/{register(http, dict(reversed(clips.items())))['id']}/classify"
        yield http, path, app.state.service.engine._recognizer


def test_the_grid_is_asked_of_the_label_that_won(
    watched: tuple[httpx.Client, str, Runtime],
    clips: dict[str, list[bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    http, path, runtime = watched
    asked: list[int] = []
    real = runtime.saliency

    def noted(frames: np.ndarray, support: EncodedSupport, label: int) -> np.ndarray:
        asked.append(label)
        return real(frames, support, label)

    monkeypatch.setattr(runtime, "saliency", noted)
    queries = [given[0] for given in clips.values()]
    found = results(http.post(path, files=query_files(*queries), data=EXPLAIN))
    named = [each["label"] for each in http.get(path.removesuffix("/classify")).json()["labels"]]
    assert [named[label] for label in asked] == [each["label"] for each in found]
    assert any(asked), "the first label won everywhere, which tells nothing"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MethodError("patches=1"), "keeps no square grid of places"),
        (torch.OutOfMemoryError("CUDA"), "no memory to say where it was seen; ask again"),
    ],
)
def test_an_answer_that_cannot_be_explained_is_still_an_answer(
    error: Exception,
    reason: str,
    watched: tuple[httpx.Client, str, Runtime],
    clip: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    http, path, runtime = watched

    def fails(*_: object) -> np.ndarray:
        raise error

    monkeypatch.setattr(runtime, "saliency", fails)
    for _ in range(3):  # a device that gave up work twice in a row would be called lost
        (result,) = results(http.post(path, files=query_files(clip), data=EXPLAIN))
        assert result["saliency"] is None
        assert reason in result["warnings"][-1]
        assert str(error) not in result["warnings"][-1]
    assert http.get("/readyz").status_code == 200
