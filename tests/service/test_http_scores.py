"""Scores depend on the clip, its task and the weights alone, whatever else is going on."""

import asyncio
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from model.calibration.fitted import Calibration, ShotRow, write_calibration
from model.errors import CheckpointError
from model.media.keeping import decode_pictures
from model.methods import METHODS, SERVED_ALIGNS, SERVED_CONTEXTS
from service.container import choose_runtime
from service.settings import Settings
from service.stores.opening import open_store
from tests.evaluated import evaluated_scores
from tests.service.conftest import png
from tests.serving import (
    classify,
    moving_clip,
    register,
    scores,
    serving,
    tiny_checkpoint,
)

Clips = dict[str, list[bytes]]
EXACT = 1e-5  # design invariant 1, fp32
ROUNDED = 1e-6  # of large scores, as squared distances of thousands: a few steps of fp32
SQUASHED: dict[str, Any] = {"squash": 1.5}
EVALUATED = 3  # queries that are compared with evaluation


def close(one: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]]) -> None:
    for left, right in zip(one, other, strict=True):
        assert left.keys() == right.keys()
        for label, numbers in left.items():
            largest = max(abs(number) for number in right[label] if number is not None)
            assert numbers == pytest.approx(right[label], abs=max(EXACT, ROUNDED * largest))


@pytest.mark.parametrize(
    ("preset", "changes"),
    [
        *((preset, {}) for preset in METHODS),
        ("frozen", SQUASHED),
        *(
            ("task_adapter_pp", {"query_context": context, "align": align})
            for context in SERVED_CONTEXTS
            for align in SERVED_ALIGNS
        ),
    ],
)
def test_a_clip_alone_scores_as_among_fifteen_others_and_as_it_is_evaluated(
    preset: str, changes: dict[str, Any], tmp_path: Path, clips: Clips
) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "checkpoint", preset, **changes)
    settings = Settings(
        checkpoint=str(checkpoint),
        store=f"sqlite:{tmp_path / 'kshot.db'}",
        threads=1,
        decode_workers=1,
    )
    queries = [moving_clip(100 + number) for number in range(16)]
    with serving(settings) as client:
        task_id = register(client, clips)["id"]
        answer = classify(client, task_id, *queries)
        together = scores(answer)
        close(scores(classify(client, task_id, queries[5])), together[5:6])
        close(scores(classify(client, task_id, *queries[::-1]))[::-1], together)
    assert len({tuple(result.values()) for result in together}) > 1
    if not changes or changes is SQUASHED:
        wanted = evaluated_scores(checkpoint, clips, queries[:EVALUATED], tmp_path)
        close(video_and_text(answer)[:EVALUATED], wanted)


def video_and_text(answer: dict[str, Any]) -> list[dict[str, tuple[float, float | None]]]:
    return [
        {ranked["label"]: (ranked["video"], ranked["text"]) for ranked in result["ranking"]}
        for result in answer["results"]
    ]


def test_other_tasks_and_requests_at_the_same_moment_change_nothing(
    client: httpx.Client, clips: Clips
) -> None:
    other = {"clap": clips["wave"], "sit": clips["jump"]}
    ids = [register(client, clips)["id"], register(client, other)["id"]]
    queries = [moving_clip(200 + number) for number in range(8)]
    alone = [[scores(classify(client, task, query)) for query in queries] for task in ids]
    with ThreadPoolExecutor(8) as threads:
        work = [
            (place, number, threads.submit(classify, client, task, query))
            for number, query in enumerate(queries)
            for place, task in enumerate(ids)
        ]
        threads.submit(register, client, {**clips, "stand": clips["jump"]})
        for place, number, answer in work:
            close(scores(answer.result()), alone[place][number])


def test_the_order_of_labels_and_clips_changes_no_score(client: httpx.Client, clips: Clips) -> None:
    turned = {label: given[::-1] for label, given in reversed(clips.items())}
    query = moving_clip(300)
    one = scores(classify(client, register(client, clips)["id"], query))
    other = scores(classify(client, register(client, turned)["id"], query))
    close(one, other)


def test_scores_after_a_restart_equal_those_before(settings: Settings, clips: Clips) -> None:
    query = moving_clip(400)
    with serving(settings) as client:
        task = register(client, clips)
        before = classify(client, task["id"], query)
    with serving(settings) as client:
        assert client.get(f"/tasks/{task['id']}").json() == task
        after = classify(client, task["id"], query)
    close(scores(before), scores(after))
    assert before["model_revision"] == after["model_revision"]


def test_tasks_of_older_stores_still_classify(settings: Settings, clips: Clips) -> None:
    """They keep PNG pictures; scores are those of the same pixels."""
    query = moving_clip(700)
    with serving(settings) as client:
        task_id = register(client, clips)["id"]
        before = scores(classify(client, task_id, query))
    asyncio.run(as_older_versions_stored(settings.store, task_id, "old"))
    with serving(settings) as client:
        close(before, scores(classify(client, "old", query)))


async def as_older_versions_stored(url: str, task_id: str, older_id: str) -> None:
    store = await open_store(url)
    record = await store.get(task_id)
    pictures = {
        clip_id: tuple(png(pixels_HWC) for pixels_HWC in decode_pictures(kept))
        for clip_id, kept in (await store.pictures(task_id)).items()
    }
    await store.create(replace(record, task_id=older_id), pictures)
    await store.close()


def test_scores_after_eviction_equal_those_before(settings: Settings, clips: Clips) -> None:
    """No cache at all: each request rebuilds the supports from the stored pictures."""
    query = moving_clip(500)
    with serving(settings.model_copy(update={"support_cache_bytes": 0})) as client:
        task = register(client, clips)
        close(
            scores(classify(client, task["id"], query)), scores(classify(client, task["id"], query))
        )
        rebuilt = scores(classify(client, task["id"], query))
    with serving(settings) as client:
        close(rebuilt, scores(classify(client, register(client, clips)["id"], query)))


def test_scores_are_the_probabilities_of_the_checkpoint_s_calibration(
    settings: Settings, clips: Clips, tmp_path: Path
) -> None:
    """The same weights with another calibration: the same ranking, other probabilities."""
    folder = tmp_path / "fitted"
    shutil.copytree(settings.checkpoint, folder)
    query = moving_clip(600)
    pairs = {"jump": clips["jump"], "pour": clips["pour"][:2]}
    with serving(settings) as client:
        before = classify(client, register(client, pairs)["id"], query)["results"][0]
        model = client.get("/info").json()["model"]
    assert "default" in model["calibration"]["source"]
    rows = tuple(ShotRow(shots=k, scale=0.01 * k, threshold=t) for k, t in ((1, -1.0), (2, 0.999)))
    fitted = Calibration(
        source="a test",
        video=rows,
        text=rows,
        fingerprint=model["fingerprint"],
        mean=(0.1,) * 32,
    )
    write_calibration(folder, fitted)
    changed = settings.model_copy(
        update={"checkpoint": str(folder), "store": f"sqlite:{tmp_path / 'fitted.db'}"}
    )
    with serving(changed) as client:
        shown = client.get("/info").json()["model"]["calibration"]
        two = classify(client, register(client, pairs)["id"], query)["results"][0]
        first = {label: given[:1] for label, given in pairs.items()}
        one = classify(client, register(client, first)["id"], query)["results"][0]
    assert shown["source"] == "a test"
    assert [row["scale"] for row in shown["video"]] == [0.01, 0.02]
    assert "mean" not in shown
    assert [r["label"] for r in two["ranking"]] == [r["label"] for r in before["ranking"]]
    assert two["margin"] < before["margin"]
    assert (two["threshold"], two["unknown"]) == (0.999, True)
    assert (one["threshold"], one["unknown"]) == (-1.0, False)
    assert -1 <= two["nearest"] < two["threshold"]


def test_a_calibration_of_other_weights_stops_the_service(
    settings: Settings, tmp_path: Path
) -> None:
    folder = tmp_path / "fitted"
    shutil.copytree(settings.checkpoint, folder)
    rows = (ShotRow(shots=1, scale=1, threshold=0),)
    write_calibration(folder, Calibration(source="x", video=rows, text=rows, fingerprint="0" * 64))
    with pytest.raises(CheckpointError, match="was fitted for weights 000000000000"):
        choose_runtime(settings.model_copy(update={"checkpoint": str(folder)}))
