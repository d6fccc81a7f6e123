"""Quotas over HTTP: what is charged, what is told, what is refused, and what is given back."""

import asyncio
import math
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from model.media.windows import WindowGrid
from service import admin
from service.app import create_app
from service.decoding.streams import OpenStream
from service.errors import EngineError
from service.keys.grants import open_grants
from service.keys.keeping import make_sure_of
from service.settings import Settings
from service.stores.quotas.kept import Kind
from service.tasks.quota.keeper import Keeper
from tests.redis_server import heard, redis_server
from tests.service.test_keys import bearer, make
from tests.serving import (
    Files,
    moving_clip,
    problem,
    query_files,
    serving_app,
    support_files,
)

A, B = moving_clip(10), moving_clip(20)
CLIPS = {"jump": [A], "wave": [B]}
CLIP_S, T = 1.2, 8  # of each clip


class Limited:
    """A running service with keys, each tenant of its own."""

    def __init__(self, store: str, app: FastAPI, http: httpx.Client) -> None:
        self.store, self.app, self.http = store, app, http
        self.count = 0

    def tenant(self, **limits: int | None) -> "Tenant":
        """Make a tenant with these limits."""
        self.count += 1
        name = f"t{self.count}"
        made = Tenant(self, name, bearer(make(self.store, name)))
        made.limit(**limits)
        return made

    @property
    def keeper(self) -> Keeper:
        keeper = self.app.state.service.keeper
        assert isinstance(keeper, Keeper)
        return keeper


class Tenant:
    """One tenant and its key."""

    def __init__(self, served: Limited, name: str, headers: dict[str, str]) -> None:
        self.served, self.name, self.headers = served, name, headers
        self.http = served.http

    def limit(self, **limits: int | None) -> None:
        async def put() -> None:
            grants = open_grants(self.served.store)
            own: dict[Kind, int | None] = {**limits}  # type: ignore[dict-item]
            await grants.put(self.name, own)
            await grants.close()

        if limits:
            asyncio.run(put())

    def register(self, files: Files | None = None, **headers: str) -> httpx.Response:
        return self.http.post(
            "/tasks", files=files or support_files(CLIPS), headers={**self.headers, **headers}
        )

    def registered(self) -> str:
        answer = self.register()
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def classify(self, task: str, *clips: bytes) -> httpx.Response:
        return self.http.post(
            f"/tasks/{task}/classify", files=query_files(*clips), headers=self.headers
        )

    def usage(self) -> dict[str, dict[str, float | None]]:
        answer = self.http.get("/v1/usage", headers=self.headers)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def used(self, *names: str) -> list[float | None]:
        shown = self.usage()
        return [shown[name]["used"] for name in names]


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("quotas")
    if request.param == "sqlite":
        yield f"sqlite:{folder}/kshot.db"
        return
    with redis_server(folder / "redis") as server:
        yield server.url


@pytest.fixture(scope="module")
def limited(url: str, checkpoint: Path) -> Iterator[Limited]:
    asyncio.run(make_sure_of(url))
    make(url)
    settings = Settings(
        checkpoint=str(checkpoint), store=url, threads=1, decode_workers=1, quota_tasks=1000
    )
    app = create_app(settings)
    with serving_app(app) as http:
        yield Limited(url, app, http)


def fields(answer: httpx.Response, name: str) -> dict[str, dict[str, int | str]]:
    """Read a list of strings with parameters, as RFC 9651 writes them."""
    found = {}
    for item in answer.headers[name].split(", "):
        named, *parameters = item.split(";")
        pairs = [one.split("=") for one in parameters]
        found[named.strip('"')] = {
            key: value.strip('"') if '"' in value else int(value) for key, value in pairs
        }
    return found


def test_an_answer_tells_the_quotas_and_what_is_left_of_them(limited: Limited) -> None:
    acme = limited.tenant(tasks=3, bytes=10**9, clip_ms=20_000, frames=100)
    made = acme.register()
    assert fields(made, "ratelimit-policy") == {
        "tasks": {"q": 3, "qu": "tasks"},
        "bytes": {"q": 10**9, "qu": "bytes"},
        "clip-seconds": {"q": 20, "qu": "clip-seconds", "w": 60},
        "frames": {"q": 100, "qu": "frames", "w": 60},
    }
    left = fields(made, "ratelimit")
    assert left["tasks"] == {"r": 2}
    assert left["clip-seconds"]["r"] == math.floor(20 - 2 * CLIP_S)
    assert left["frames"]["r"] == 100 - 2 * T
    assert 0 < int(left["frames"]["t"]) <= 60
    asked = acme.classify(made.json()["id"], A)
    assert fields(asked, "ratelimit")["frames"]["r"] == 100 - 3 * T
    usage = acme.usage()
    assert usage["frames"] == {"limit": 100, "used": 3 * T, "left": 76, **reset(usage, "frames")}
    assert usage["clip_seconds"]["used"] == pytest.approx(3 * CLIP_S, abs=0.11)
    assert usage["tasks"] == {"limit": 3, "used": 1, "left": 2, "reset_s": None}
    held = usage["bytes"]["used"]
    assert held is not None
    assert held > 0
    assert usage["window_s"] == 60


def reset(usage: Mapping[str, Mapping[str, float | None]], name: str) -> dict[str, float]:
    seconds = usage[name]["reset_s"]
    assert seconds is not None
    assert 0 < seconds <= 60
    return {"reset_s": seconds}


def test_without_a_limit_there_is_null_and_another_s_use_is_not_seen(limited: Limited) -> None:
    acme, other = limited.tenant(frames=None), limited.tenant(tasks=None)
    task = acme.registered()
    assert acme.used("tasks", "frames") == [1, 2 * T]
    assert other.used("tasks", "bytes", "frames") == [0, 0, 0]
    usage = other.usage()
    assert usage["tasks"] == {"limit": None, "used": 0, "left": None, "reset_s": None}
    assert acme.usage()["tasks"]["limit"] == 1000  # of the settings
    problem(other.classify(task, A), 404, "task-not-found")
    assert other.used("frames") == [0]
    asked = limited.http.get("/v1/usage")
    problem(asked, 401, "key-missing")
    write = bearer(make(limited.store, acme.name, "write"))
    problem(limited.http.get("/usage", headers=write), 403, "scope-missing")


def test_a_rate_that_is_used_up_is_a_429_that_counts_nothing(limited: Limited) -> None:
    acme = limited.tenant(frames=4 * T)
    task = acme.registered()
    assert acme.classify(task, A).status_code == 200
    refused = acme.classify(task, A, B)
    body = problem(refused, 429, "quota-exceeded")
    assert body["retryable"]
    assert body["errors"] == [{"field": "frames", "message": "16 asked for, 8 left"}]
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert fields(refused, "ratelimit")["frames"]["r"] == T
    assert acme.used("frames") == [3 * T]
    assert acme.classify(task, A).status_code == 200
    problem(acme.classify(task, A), 429, "quota-exceeded")
    problem(acme.register(), 429, "quota-exceeded")
    assert acme.used("frames", "tasks") == [4 * T, 1]


def test_what_never_fits_is_told_so_and_not_to_be_sent_again(limited: Limited) -> None:
    acme = limited.tenant(frames=3 * T, clip_ms=2500)
    task = acme.registered()
    refused = acme.classify(task, A, A, A, A)
    body = problem(refused, 413, "quota-too-small")
    assert not body["retryable"]
    assert "32 frames" in body["detail"] or "4.8 seconds" in body["detail"]
    assert "retry-after" not in refused.headers
    assert acme.used("frames") == [2 * T]


def test_seconds_of_video_are_those_of_the_span_by_the_headers(limited: Limited) -> None:
    acme = limited.tenant(clip_ms=100_000)
    task = acme.registered()
    before = acme.usage()["clip_seconds"]["used"] or 0.0
    part = {"start_s": "0.2", "end_s": "0.7"}
    answer = acme.http.post(
        f"/tasks/{task}/classify", files=query_files(A), data=part, headers=acme.headers
    )
    assert answer.status_code == 200, answer.text
    assert acme.usage()["clip_seconds"]["used"] == pytest.approx(before + 0.5)


def test_a_full_store_is_a_409_with_the_remedy_until_tasks_are_deleted(limited: Limited) -> None:
    acme = limited.tenant(tasks=1)
    task = acme.registered()
    refused = acme.register()
    body = problem(refused, 409, "quota-full")
    assert not body["retryable"]
    assert "delete tasks" in body["detail"]
    assert fields(refused, "ratelimit")["tasks"]["r"] == 0
    assert acme.used("tasks", "frames") == [1, 2 * T]
    assert acme.http.delete(f"/tasks/{task}", headers=acme.headers).status_code == 204
    assert acme.used("tasks", "bytes") == [0, 0]
    assert acme.register().status_code == 201


def test_bytes_hold_for_registrations_changes_and_imports(limited: Limited) -> None:
    acme = limited.tenant(frames=10_000)
    task = acme.registered()
    size = int(acme.used("bytes")[0] or 0)
    exported = acme.http.get(f"/tasks/{task}/export", headers=acme.headers).content
    acme.limit(bytes=size + size // 4)
    frames = acme.used("frames")
    zip_file = {**acme.headers, "content-type": "application/zip"}
    labels = f"/tasks/{task}/labels"
    for answer in (
        acme.register(),
        acme.register(prefer="wait=0"),
        acme.http.post("/tasks/import", content=exported, headers=zip_file),
        acme.http.post(f"{labels}/jump/clips", files=query_files(B), headers=acme.headers),
        acme.http.put(f"{labels}/pour", files=query_files(A), headers=acme.headers),
    ):
        problem(answer, 409, "quota-full")
    assert acme.used("tasks", "bytes", "frames") == [1, size, *frames]
    renamed = acme.http.patch(f"{labels}/jump", json={"label": "leap"}, headers=acme.headers)
    assert renamed.status_code == 200, renamed.text
    acme.limit(bytes=10 * size)
    added = acme.http.post(f"{labels}/wave/clips", files=query_files(A), headers=acme.headers)
    assert added.status_code == 200, added.text
    put = acme.http.put(f"{labels}/pour", files=query_files(B), headers=acme.headers)
    assert put.status_code == 200, put.text
    made = acme.http.post("/tasks/import", content=exported, headers=zip_file)
    assert made.status_code == 201, made.text
    assert acme.used("tasks", "frames") == [2, (frames[0] or 0) + 4 * T]
    for answer in (added, put, made):
        assert "frames" not in fields(answer, "ratelimit-policy") or "ratelimit" in answer.headers


def test_a_timeline_is_charged_by_its_headers_before_it_is_decoded(limited: Limited) -> None:
    acme = limited.tenant(frames=10_000, clip_ms=10_000)
    task = acme.registered()
    frames, seconds = acme.used("frames", "clip_seconds")
    assert frames is not None
    assert seconds is not None
    asked = {"window_s": "0.4"}
    address = f"/tasks/{task}/timeline"
    found = acme.http.post(address, files=query_files(A), data=asked, headers=acme.headers)
    assert found.status_code == 200, found.text
    assert fields(found, "ratelimit")["clip-seconds"]["r"] == math.floor(10 - seconds - CLIP_S)
    now = acme.used("frames", "clip_seconds")
    assert now[1] == pytest.approx(seconds + CLIP_S, abs=0.1)
    assert (now[0] or 0) > frames
    acme.limit(clip_ms=1000)
    refused = acme.http.post(address, files=query_files(A), data=asked, headers=acme.headers)
    problem(refused, 413, "quota-too-small")
    assert acme.used("frames", "clip_seconds") == now


def test_a_video_that_hides_its_length_is_charged_as_it_is_looked_at(
    limited: Limited, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As JSON it is a 429, as events a problem in the end; what was looked at stays charged."""
    begin = OpenStream.begin

    async def hiding(self: OpenStream, grid: WindowGrid) -> None:
        await begin(self, grid)
        self.claimed_s = None

    monkeypatch.setattr(OpenStream, "begin", hiding)
    monkeypatch.setattr("service.tasks.timeline.follow.UNKNOWN_S", 0.5)
    monkeypatch.setattr("service.tasks.timeline.follow.SLACK_S", 0.1)
    acme = limited.tenant(clip_ms=None)
    path = f"/tasks/{acme.registered()}/timeline"

    def follow(accept: str) -> httpx.Response:
        headers = {**acme.headers, "accept": accept}
        asked = {"window_s": "0.4"}
        return acme.http.post(path, files=query_files(A), data=asked, headers=headers)

    before = acme.used("clip_seconds")[0] or 0.0
    assert follow("*/*").status_code == 200
    used = acme.used("clip_seconds")[0] or 0.0
    assert used == pytest.approx(before + CLIP_S, abs=0.11)
    acme.limit(clip_ms=round(1e3 * used) + 800)
    problem(follow("*/*"), 429, "quota-exceeded")
    assert acme.used("clip_seconds")[0] == pytest.approx(used + 0.5, abs=0.01)
    acme.limit(clip_ms=round(1e3 * used) + 1300)
    events = follow("text/event-stream")
    assert events.status_code == 200
    assert '"code":"quota-exceeded"' in events.text.rpartition("event: ")[2]


def test_a_query_that_becomes_an_example_is_charged(limited: Limited) -> None:
    acme = limited.tenant(frames=5 * T)
    task = acme.registered()
    path = f"/tasks/{task}"
    kept = acme.http.post(
        f"{path}/classify", files=query_files(A), data={"remember": "true"}, headers=acme.headers
    )
    query = kept.json()["results"][0]["query_id"]
    learnt = acme.http.post(f"{path}/inbox/{query}", json={"label": "jump"}, headers=acme.headers)
    assert learnt.status_code == 200, learnt.text
    assert fields(learnt, "ratelimit")["frames"]["r"] == T
    assert acme.used("frames") == [4 * T]


def test_what_fails_through_our_fault_is_given_back(
    limited: Limited, monkeypatch: pytest.MonkeyPatch
) -> None:
    acme = limited.tenant(frames=1000, clip_ms=100_000)
    task = acme.registered()
    before = acme.used("frames", "clip_seconds")

    async def failing(*_: object, **__: object) -> None:
        raise EngineError("The device failed.")

    monkeypatch.setattr(limited.app.state.service.engine, "classify", failing)
    failed = acme.classify(task, A)
    problem(failed, 500, "engine-failed")
    assert fields(failed, "ratelimit")["frames"]["r"] == 1000 - 2 * T
    late = time.monotonic() + 20
    while acme.used("frames", "clip_seconds") != before:
        assert time.monotonic() < late
        time.sleep(0.02)


def test_a_deadline_that_the_client_set_gives_nothing_back(
    limited: Limited, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a short one would have clips decoded for nothing."""
    acme = limited.tenant(frames=1000)
    task = acme.registered()

    async def stuck(*_: object, **__: object) -> None:
        await asyncio.sleep(600)

    monkeypatch.setattr(limited.app.state.service.engine, "classify", stuck)
    answer = acme.http.post(
        f"/tasks/{task}/classify",
        files=query_files(A),
        headers={**acme.headers, "x-request-timeout-ms": "3000"},
    )
    problem(answer, 504, "deadline-passed")
    assert fields(answer, "ratelimit")["frames"]["r"] == 1000 - 3 * T
    assert acme.used("frames") == [3 * T]


def test_a_retry_of_what_was_done_is_charged_once(limited: Limited) -> None:
    acme = limited.tenant(frames=3 * T)
    key = {"idempotency-key": "one"}
    first = acme.register(**key)
    assert first.status_code == 201
    again = acme.register(**key)
    assert again.json() == first.json()
    assert acme.used("frames", "tasks") == [2 * T, 1]
    other = {"idempotency-key": "two"}
    problem(acme.register(**other), 429, "quota-exceeded")
    acme.limit(frames=100)
    assert acme.register(**other).status_code == 201  # nothing was made under that key


def test_refusals_are_counted_without_the_tenant_s_name(limited: Limited) -> None:
    acme = limited.tenant(frames=1)
    keeper = limited.keeper
    before = keeper.refused["frames"]
    problem(acme.register(), 413, "quota-too-small")
    assert keeper.refused["frames"] == before + 1
    key = bearer(make(limited.store, scopes="admin"))
    text = limited.http.get("/metrics", headers=key).text
    assert f'kshot_quota_refused_total{{quota="frames"}} {before + 1}' in text
    assert 'kshot_admission_total{outcome="quota"}' in text
    assert acme.name not in text


def test_while_the_store_is_away_what_is_at_hand_answers_uncharged(
    limited: Limited, monkeypatch: pytest.MonkeyPatch
) -> None:
    acme = limited.tenant(frames=2 * T)
    task = acme.registered()
    problem(acme.classify(task, A), 429, "quota-exceeded")
    asked: list[str] = []

    async def hanging(*_: object, **__: object) -> None:
        asked.append("")
        await asyncio.sleep(600)

    with monkeypatch.context() as patch:
        patch.setattr(limited.keeper.store, "charge", hanging)
        patch.setattr("service.tasks.quota.keeper.PATIENCE_S", 0.1)
        patch.setattr("service.tasks.quota.keeper.PAUSE_S", 600.0)
        for _ in range(3):
            assert acme.classify(task, A).status_code == 200
        assert len(asked) == 1  # and then it is left alone for a while
    limited.keeper._away_until = 0.0
    problem(acme.classify(task, A), 429, "quota-exceeded")


def test_a_charged_request_costs_one_command_more_and_one_without_quotas_none(
    limited: Limited, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run with `-s` to see how many commands there are in all."""
    if limited.store.startswith("sqlite"):
        pytest.skip("commands are counted on Redis")
    acme = limited.tenant(frames=10**6)
    task = acme.registered()

    def ask() -> None:
        for _ in range(10):
            assert acme.classify(task, A).status_code == 200

    ask()
    charged = heard(limited.store, ask)
    monkeypatch.setattr(limited.keeper, "on", False)
    free = heard(limited.store, ask)
    sys.stdout.write(f"\n10 classify: {len(charged)} commands charged, {len(free)} without\n")
    assert len([one for one in charged if "kshot:rates:" in one]) == 10
    assert not [one for one in free if "kshot:rates:" in one or "kshot:held:" in one]


def test_an_open_service_asks_nothing_until_there_is_a_quota(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store = f"sqlite:{tmp_path}/kshot.db"
    monkeypatch.setattr("service.tasks.quota.starting.LOOK_S", 0.05)
    app = create_app(Settings(checkpoint=str(checkpoint), store=store, threads=1, decode_workers=1))
    with serving_app(app) as http:
        made = http.post("/tasks", files=support_files(CLIPS))
        assert made.status_code == 201
        assert "ratelimit" not in made.headers
        assert not app.state.service.keeper.on
        assert http.get("/usage").json()["tasks"]["used"] == 1
        told = administer(store, monkeypatch, capsys, "set", "default", "--frames", "8")
        assert told == "default\tframes 8"
        late = time.monotonic() + 20
        path = f"/tasks/{made.json()['id']}/classify"
        while (answer := http.post(path, files=query_files(A, B))).status_code == 200:
            assert time.monotonic() < late
        problem(answer, 413, "quota-too-small")
        assert http.post(path, files=query_files(A)).status_code == 200


def administer(
    store: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str
) -> str:
    """Run `kshot-admin quotas`, and return what it prints."""
    monkeypatch.setattr("sys.argv", ["kshot-admin", "quotas", "--store", store, *words])
    assert admin.main() == 0
    return capsys.readouterr().out.strip()


def test_the_command_sets_shows_and_clears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = f"sqlite:{tmp_path}/kshot.db"
    words = ("set", "acme", "--tasks", "100", "--bytes", "10GB", "--clip-seconds", "600")
    told = administer(store, monkeypatch, capsys, *words)
    assert told == "acme\ttasks 100\tbytes 10000000000\tclip-seconds 600"
    administer(store, monkeypatch, capsys, "set", "acme", "--frames", "none", "--bytes", "1.5MiB")
    administer(store, monkeypatch, capsys, "set", "beta", "--frames", "0")
    assert administer(store, monkeypatch, capsys, "show").splitlines() == [
        "acme\ttasks 100\tbytes 1572864\tclip-seconds 600\tframes none",
        "beta\tframes 0",
    ]
    assert administer(store, monkeypatch, capsys, "clear", "acme") == "beta\tframes 0"
    for wrong in (("set", "acme"), ("set", "acme", "--frames", "1.5"), ("clear", "ACME")):
        monkeypatch.setattr("sys.argv", ["kshot-admin", "quotas", "--store", store, *wrong])
        assert admin.main() == 2
    monkeypatch.setattr("sys.argv", ["x", "quotas", "--store", store, "set", "a", "--tasks", "1GB"])
    assert admin.main() == 2
    assert "whole number" in capsys.readouterr().err
