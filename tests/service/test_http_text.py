"""The language model never gates a task: its text arrives later, as the next revision."""

import asyncio
import contextlib
import json
import logging
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import openai
import pytest

from model.errors import DescriptionError
from model.text import WORDING_VERSION, template_stages
from service.engine.engine import Engine
from service.engine.runtimes.pytorch import TorchRuntime
from service.logs import JsonLines
from service.settings import Settings
from service.stores.records import LabelRecord
from service.stores.sqlite import SqliteStore
from service.tasks.describe import why_undescribed
from service.tasks.texts import TaskTexts
from tests.language_model import Endpoint, language_model
from tests.model.tiny import tiny_recognizer
from tests.serving import classify, moving_clip, register, scores, serving, support_files

API = Path(__file__).resolve().parents[2] / "docs/api.md"
Clips = dict[str, list[bytes]]
Asking = tuple[httpx.Client, Endpoint]
BETTER = ["The jump begins.", "The wave goes on.", "The pour ends."]


@pytest.fixture
def model() -> Iterator[Endpoint]:
    with language_model() as model:
        model.content = json.dumps({"stages": BETTER})
        yield model


@pytest.fixture
def described(settings: Settings, model: Endpoint) -> Settings:
    return settings.model_copy(update={"llm_base_url": model.url, "llm_model": "fake"})


def wait_for_revision(client: httpx.Client, task_id: str, revision: int) -> dict[str, object]:
    return wait_for(client, task_id, lambda task: task["revision"] == revision)


def wait_for(
    client: httpx.Client, task_id: str, reached: Callable[[dict[str, object]], bool]
) -> dict[str, object]:
    """Return a task once it is as it shall be."""
    deadline = time.monotonic() + 20
    while True:
        task: dict[str, object] = client.get(f"/tasks/{task_id}").json()
        if reached(task):
            return task
        assert time.monotonic() < deadline, task
        time.sleep(0.02)


def test_better_text_comes_as_a_new_revision(
    described: Settings, model: Endpoint, clips: Clips
) -> None:
    query = moving_clip(9)
    model.delay_s = 3.0
    with serving(described) as client:
        task = register(client, clips)
        assert (task["status"], task["revision"], task["text"]) == ("ready", 1, "template")
        before = classify(client, task["id"], query)
        assert (before["task_revision"], before["text_source"]) == (1, "template")
        better = wait_for_revision(client, task["id"], 2)
        assert better["text"] == "llm"
        assert [x["descriptions"] for x in better["labels"]] == [BETTER] * 3
        after = classify(client, task["id"], query)
        assert (after["task_revision"], after["text_source"]) == (2, "llm")
        assert scores(after) != scores(before)
    with serving(described) as client:
        assert client.get(f"/tasks/{task['id']}").json() == better
        for old, new in zip(
            scores(after), scores(classify(client, task["id"], query)), strict=True
        ):
            assert all(new[label] == pytest.approx(old[label], abs=1e-5) for label in old)


def test_answers_are_kept_for_the_next_task(
    described: Settings, model: Endpoint, clips: Clips
) -> None:
    with serving(described) as client:
        wait_for_revision(client, register(client, clips)["id"], 2)
        asked = len(model.calls)
        assert asked == 3
        task = register(client, clips)
        assert (task["revision"], task["text"]) == (1, "llm")
        assert len(model.calls) == asked


FAULTS = {
    "401": "status 401; check OPENAI_API_KEY",
    "404": "status 404; check KSHOT_LLM_BASE_URL and KSHOT_LLM_MODEL",
    "not json": "it is no JSON",
    "no choices": "it has no choices",
    "refusal": "the model refused",
}


@pytest.fixture(scope="module")
def asking(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asking]:
    """A service and the language model that it asks."""
    with language_model() as model:
        settings = Settings(
            checkpoint=str(checkpoint),
            store=f"sqlite:{tmp_path_factory.mktemp('asking') / 'kshot.db'}",
            threads=1,
            decode_workers=1,
            llm_base_url=model.url,
            llm_model="fake",
            openai_api_key="sk-must-not-be-told",
        )
        with serving(settings) as client:
            yield client, model


@pytest.mark.parametrize("mode", FAULTS)
def test_a_model_that_fails_says_why_and_changes_nothing_else(
    asking: Asking, clips: Clips, caplog: pytest.LogCaptureFixture, mode: str
) -> None:
    client, model = asking
    model.mode = mode
    task = register(client, clips)
    shown = wait_for(client, task["id"], lambda task: task["text_reason"] is not None)
    assert FAULTS[mode] in str(shown["text_reason"])
    assert shown | {"text_reason": None} == task | {"text_reason": None}
    answer = classify(client, task["id"], clips["jump"][0])
    assert (answer["text_source"], answer["text_reason"]) == ("template", shown["text_reason"])
    (line,) = [each.message for each in caplog.records if task["id"] in each.message]
    assert FAULTS[mode] in line
    told = " ".join(each.getMessage() for each in caplog.records)
    assert "must-not-be-told" not in told
    assert not [label for label in clips if label in told]


def test_text_that_the_tower_cannot_read_is_not_taken(
    described: Settings, model: Endpoint, clips: Clips
) -> None:
    model.content = json.dumps({"stages": ["Somersaulting."] * 3})
    with serving(described) as client:
        task = register(client, clips)
        deadline = time.monotonic() + 10
        while len(model.calls) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(0.2)
        assert client.get(f"/tasks/{task['id']}").json() == task


def test_no_model_is_asked_where_no_text_takes_part(
    described: Settings, model: Endpoint, clips: Clips
) -> None:
    with serving(described) as client:
        task = register(client, {"somersault": clips["jump"], "wave": clips["wave"]})
        assert task["text"] is None
        time.sleep(0.2)
    assert not model.calls


def test_text_features_are_kept_by_fingerprint_and_text(
    settings: Settings, clips: Clips, tmp_path: Path
) -> None:
    with serving(settings) as client:
        register(client, clips)
        kept = _features(tmp_path)
        register(client, {"wave": clips["wave"], "jump": clips["jump"]})
        assert _features(tmp_path) == kept
        register(client, {"wave": clips["wave"], "clap": clips["jump"]})
        assert len(_features(tmp_path)) == len(kept) + 1 == 4


SECRETS = ("zyzzyva", "turn left", "hush-hush")


@pytest.mark.parametrize("mode", ["401", "not json", "good"])  # what is good is kept
def test_logs_carry_no_label(
    asking: Asking, clip: bytes, caplog: pytest.LogCaptureFixture, mode: str
) -> None:
    """Not where the tower lacks words, the model answers badly, or a request is refused."""
    for name, level in (("", logging.INFO), ("kshot", logging.DEBUG), ("service", logging.DEBUG)):
        caplog.set_level(level, name)
    client, model = asking
    model.mode = mode
    model.content = json.dumps({"stages": ["Zyzzyva begins.", "Zyzzyva.", "Turn left ends."]})
    asked = len(model.calls)
    unread = register(client, {"zyzzyva": [clip], "hush-hush": [moving_clip(2)]})
    assert "'zyzzyva'" in unread["text_reason"]
    task = register(client, {"turn left": [clip], "jump": [moving_clip(2)]})
    classify(client, task["id"], clip)
    twice = client.post("/tasks", files=support_files({"turn left": [clip], "TurnLeft": [clip]}))
    assert twice.json()["code"] == "label-duplicate"
    broken = client.post("/tasks", files=support_files({"hush-hush": [b"no"], "jump": [clip]}))
    assert broken.status_code == 415
    wait_for(client, task["id"], lambda _: "template text" in _told(caplog))
    assert len(model.calls) > asked
    told = _told(caplog)
    assert not [secret for secret in (*SECRETS, "turnleft") if secret in told]


def _told(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(JsonLines().format(record) for record in caplog.records).lower()


async def test_kept_features_are_those_of_one_rule_of_shortening(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await SqliteStore.open(tmp_path / "kshot.db")
    engine = Engine(TorchRuntime(tiny_recognizer()), batch_frames=8)
    await engine.start()
    texts = TaskTexts(engine, store, None, ttl_s=60)
    record = LabelRecord(label="wave", stages=template_stages("wave"), text_source="template")
    for version, kept in ((WORDING_VERSION, 1), (WORDING_VERSION, 1), (WORDING_VERSION + 1, 2)):
        monkeypatch.setattr("service.tasks.texts.WORDING_VERSION", version)
        assert await texts.encode([record], "") is not None
        assert len(_features(tmp_path)) == kept
    for owner, kept in (("", 2), ("acme", 3), ("acme", 3), ("acme-2", 4)):
        assert await texts.encode([record], owner) is not None
        assert len(_features(tmp_path)) == kept, "a tenant finds what another one has encoded"
    await engine.close()
    await store.close()


def test_every_reason_is_in_the_document_and_nothing_else(tmp_path: Path) -> None:
    rows = re.findall(r"^\| `(The .*)` \|$", API.read_text(encoding="utf-8"), re.MULTILINE)
    patterns = [re.escape(row).replace(r"\.\.\.", "(.+)") for row in rows]
    status = openai.APIStatusError(
        "no", response=httpx.Response(401, request=httpx.Request("POST", "http://a")), body=None
    )
    unusable = DescriptionError("The answer is of no use: it is no JSON.")
    reasons = asyncio.run(_reasons(tmp_path))
    reasons += map(why_undescribed, (unusable, TimeoutError(), status, ValueError()))
    matched = [[p for p in patterns if re.fullmatch(p, reason)] for reason in reasons]
    assert [len(fitting) for fitting in matched] == [1] * len(reasons), reasons
    assert {fitting[0] for fitting in matched} == set(patterns)


async def _reasons(folder: Path) -> list[str]:
    """Give one reason of each kind, as tasks show them."""
    store = await SqliteStore.open(folder / "texts.db")
    alone = TorchRuntime(tiny_recognizer(fusion="video"))
    both = TorchRuntime(tiny_recognizer())
    alike = tuple("the wave goes on " * 8 + end for end in ("begins", "goes", "ends"))
    asked = [
        (alone, "wave", template_stages("wave")),
        (both, "wave", ("one",)),
        (both, "yodel", template_stages("yodel")),
        (both, "!!!", template_stages("!!!")),
        (both, "on a " * 20, template_stages("on a " * 20)),
        (both, "wave", alike),
    ]
    reasons = []
    for runtime, label, stages in asked:
        texts = TaskTexts(Engine(runtime, batch_frames=8), store, None, ttl_s=1)
        record = LabelRecord(label=label, stages=stages, text_source="client")
        reasons.append(await texts.reason([record]))
    await store.close()
    return [reason for reason in reasons if reason is not None]


def _features(folder: Path) -> set[tuple[str]]:
    with contextlib.closing(sqlite3.connect(folder / "kshot.db")) as db:
        return set(db.execute("SELECT name FROM texts"))
