"""Videos as phones and cameras make them: the right picture, as support and as query."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest

from model.media.sampling import Clip
from tests.phone_videos import KINDS, SIDE, WARNED
from tests.pools import make_pool, request
from tests.serving import query_files, support_files

MOST_DIFFERENCE = 6  # of 255, in the mean
CLOSER = {
    "interlaced": 2.5,
    "AVCHD": 2.5,
    "MPEG-2": 3.0,
}  # with both moments in it the picture differs by 3 or more


@pytest.fixture(scope="module")
def videos() -> dict[str, tuple[bytes, np.ndarray]]:
    with ThreadPoolExecutor(2) as threads:
        return dict(zip(KINDS, threads.map(lambda make: make(), KINDS.values()), strict=True))


@pytest.fixture(scope="module")
def decoded(videos: dict[str, tuple[bytes, np.ndarray]]) -> dict[str, Clip]:
    """What the sandboxed decoders make of them."""

    async def decode() -> list[Clip]:
        async with make_pool(workers=2, size=SIDE) as pool:
            given = (pool.decode(request(video)) for video, _ in videos.values())
            return await asyncio.gather(*given)

    return dict(zip(videos, asyncio.run(decode()), strict=True))


@pytest.fixture(scope="module")
def answers(
    client: httpx.Client, videos: dict[str, tuple[bytes, np.ndarray]]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A task with one kind a label, and what each kind is taken for in it."""
    support = support_files({kind: [video] for kind, (video, _) in videos.items()})
    task = client.post("/tasks", files=support)
    assert task.status_code in (201, 202), task.text
    patient = {"X-Request-Timeout-Ms": "60000"}
    queries = query_files(*(video for video, _ in videos.values()))
    path = f"/tasks/{task.json()['id']}/classify"
    found = client.post(path, files=queries, headers=patient)
    assert found.status_code == 200, found.text
    return task.json(), found.json()["results"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_picture_is_the_one_that_a_screen_shows(
    kind: str, decoded: dict[str, Clip], videos: dict[str, tuple[bytes, np.ndarray]]
) -> None:
    expected = videos[kind][1].astype(int)
    difference = np.abs(decoded[kind].frames_THWC - expected).mean(axis=(1, 2, 3))
    assert difference.max() < CLOSER.get(kind, MOST_DIFFERENCE)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_taken_as_support_and_as_query_with_its_warning(
    kind: str, answers: tuple[dict[str, Any], list[dict[str, Any]]]
) -> None:
    task, results = answers
    support = next(clip for clip in task["clips"] if clip["label"] == kind)
    query = results[list(KINDS).index(kind)]
    assert query["error"] is None
    for warnings in (support["warnings"], query["warnings"]):
        if kind in WARNED:
            assert [line for line in warnings if WARNED[kind] in line and line.endswith(".")]
        else:
            assert warnings == []
