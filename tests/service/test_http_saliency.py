"""Where an answer was seen: asked for in both forms, of few clips, and nothing else changes."""

from typing import Any

import httpx
import numpy as np
import pytest

from service.limits import MOST_EXPLAINED
from tests.serving import base64_of, moving_clip, problem, query_files, register

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
    shown = [{"video": base64_of(each)} for each in many]
    assert client.get("/limits").json()["explained_clips"] == MOST_EXPLAINED
    for answer in (
        client.post(path, files=query_files(*many), data=EXPLAIN),
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
