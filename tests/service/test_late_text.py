"""Text that arrives late, where class text is part of the support features: CLIP-FSAR, MA-CLIP."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from model.methods import METHODS
from service.settings import Settings
from tests.language_model import Endpoint, language_model
from tests.model.tiny import TOWERS, WORDS
from tests.service.test_http_text import wait_for_revision
from tests.serving import (
    base64_of,
    classify,
    moving_clip,
    problem,
    register,
    scores,
    serving,
    tiny_checkpoint,
)

Clips = dict[str, list[bytes]]
BETTER = {"jump": "the jump ends", "wave": "the wave goes on", "pour": "the pour begins"}
QUERY = moving_clip(9)


@pytest.fixture
def model() -> Iterator[Endpoint]:
    with language_model() as model:
        model.by_label = {
            label: json.dumps({"stages": [sentence]}) for label, sentence in BETTER.items()
        }
        yield model


@pytest.fixture
def clip_fsar(settings: Settings, model: Endpoint, tmp_path: Path) -> Settings:
    return of_preset("clip_fsar", settings, model, tmp_path)


@pytest.fixture(params=["clip_fsar", "ma_clip"])
def text_inside(
    request: pytest.FixtureRequest, settings: Settings, model: Endpoint, tmp_path: Path
) -> Settings:
    """Text is in prototypes alone, or inside the blocks of supports too."""
    return of_preset(request.param, settings, model, tmp_path)


def of_preset(preset: str, settings: Settings, model: Endpoint, folder: Path) -> Settings:
    """Serve a preset on tiny towers whose text half knows the words of its prompt, too."""
    assert TOWERS.text is not None
    words = tuple(sorted({*WORDS, *METHODS[preset].prompt.replace("{stage}", "").split()}))
    towers = replace(TOWERS, text=replace(TOWERS.text, words=words))
    checkpoint = tiny_checkpoint(folder / preset, preset, backbone=towers)
    return settings.model_copy(
        update={"checkpoint": str(checkpoint), "llm_base_url": model.url, "llm_model": "fake"}
    )


def close(
    found: list[dict[str, tuple[float, ...]]], wanted: list[dict[str, tuple[float, ...]]]
) -> bool:
    """Tell whether all numbers of two answers agree."""
    return all(
        there.keys() == here.keys()
        and all(here[label] == pytest.approx(there[label], abs=1e-5) for label in there)
        for here, there in zip(found, wanted, strict=True)
    )


def register_with_text(client: httpx.Client, clips: Clips) -> str:
    """Register a task whose labels have the better text from the start, as JSON."""
    labels = [
        {
            "label": label,
            "descriptions": [BETTER[label]],
            "clips": [{"video": base64_of(clip)} for clip in given],
        }
        for label, given in clips.items()
    ]
    answer = client.post("/tasks", json={"labels": labels})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def test_scores_after_late_text_equal_those_of_a_task_registered_with_it(
    text_inside: Settings, model: Endpoint, clips: Clips
) -> None:
    model.delay_s = 2.0
    with serving(text_inside) as client:
        task = register(client, clips)
        assert (task["revision"], task["text"], task["text_reason"]) == (1, "template", None)
        before = classify(client, task["id"], QUERY)
        better = wait_for_revision(client, task["id"], 2)
        assert [label["descriptions"] for label in better["labels"]] == [
            [BETTER[label["label"]]] for label in better["labels"]
        ]
        after = classify(client, task["id"], QUERY)
        assert (after["task_revision"], after["text_source"]) == (2, "llm")
        wanted = classify(client, register_with_text(client, clips), QUERY)
        assert wanted["text_source"] == "client"
        assert close(scores(after), scores(wanted))
        assert video(after) != pytest.approx(video(before), abs=1e-4), "stale support features"
    with serving(text_inside) as client:
        assert close(scores(classify(client, task["id"], QUERY)), scores(wanted))


def test_a_method_of_one_stage_takes_one_sentence(clip_fsar: Settings, clips: Clips) -> None:
    with serving(clip_fsar) as client:
        assert client.get("/limits").json()["stages"] == 1
        three = json.dumps({label: ["a"] * 3 for label in clips})
        files = [("support[jump]", ("0.mp4", QUERY)), ("support[wave]", ("0.mp4", QUERY))]
        refused = client.post("/tasks", files=files, data={"descriptions": three})
        assert "one sentence" in problem(refused, 422, "description-invalid")["detail"]
        task = client.get(f"/tasks/{register_with_text(client, clips)}").json()
        assert [label["descriptions"] for label in task["labels"]] == [
            [BETTER[label]] for label in clips
        ]


def video(answer: dict[str, list[dict[str, list[dict[str, float]]]]]) -> list[float]:
    """Give the video scores of an answer, by label."""
    ranking = sorted(answer["results"][0]["ranking"], key=lambda ranked: ranked["label"])
    return [ranked["video"] for ranked in ranking]
