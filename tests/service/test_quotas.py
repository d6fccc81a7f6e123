"""Quotas over HTTP: what is charged, what is told, what is refused, and what is given back."""

import asyncio
import math
import sys
from collections.abc import Mapping

import httpx
import pytest

from model.episode import EncodedSupport
from model.media.windows import WindowGrid
from service.decoding.streams import OpenStream
from service.engine.saliency_work import PASSES
from service.errors import NotReadyError
from service.stores.errors import RevisionConflictError
from tests.limited import CLIP_S, A, B, Limited, T, fields, until
from tests.redis_server import heard
from tests.service.test_keys import bearer, make
from tests.serving import (
    problem,
    query_files,
)


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
    few, short = limited.tenant(frames=3 * T), limited.tenant(clip_ms=2500)
    for acme, told in ((few, "32 frames"), (short, "4.8 seconds")):
        task = acme.registered()
        refused = acme.classify(task, A, A, A, A)
        body = problem(refused, 413, "quota-too-small")
        assert not body["retryable"]
        assert told in body["detail"]
        assert "retry-after" not in refused.headers
        assert acme.used("frames") == [2 * T]


def test_seconds_of_video_are_those_of_the_span_by_the_headers(limited: Limited) -> None:
    acme = limited.tenant(clip_ms=100_000)
    task = acme.registered()
    before = acme.usage()["clip_seconds"]["used"] or 0.0
    answer = acme.classify(task, A, data={"start_s": "0.2", "end_s": "0.7"})
    assert answer.status_code == 200, answer.text
    assert acme.usage()["clip_seconds"]["used"] == pytest.approx(before + 0.5)


def test_an_explained_clip_counts_as_often_as_the_device_sees_it(limited: Limited) -> None:
    acme = limited.tenant(frames=100)
    answer = acme.classify(acme.registered(), A, data={"explain": "true"})
    assert answer.status_code == 200, answer.text
    assert acme.used("frames") == [2 * T + PASSES * T]


def test_a_clip_that_is_seen_to_be_damaged_counts_nothing(limited: Limited) -> None:
    acme = limited.tenant(frames=100, clip_ms=100_000)
    answer = acme.classify(acme.registered(), A, b"no video")
    assert answer.status_code == 200, answer.text
    assert acme.used("frames") == [3 * T]


def test_a_new_limit_of_seconds_holds_from_the_next_request_on(limited: Limited) -> None:
    acme = limited.tenant(frames=100)
    task = acme.registered()
    assert acme.classify(task, A).status_code == 200
    before = acme.used("frames", "clip_seconds")
    acme.limit(clip_ms=round(1e3 * (before[1] or 0.0)) + 500)
    problem(acme.classify(task, A), 429, "quota-exceeded")
    until(lambda: acme.used("frames", "clip_seconds") == before)


def test_a_task_is_not_rebuilt_for_a_request_that_is_over_a_quota(
    limited: Limited, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change beside it charges it no second time, and a task that gets ready nothing."""
    acme = limited.tenant(frames=3 * T)
    task, supports = acme.registered(), limited.app.state.service.tasks.supports
    get, errors = supports.get, list[Exception]()

    async def asked(*given: object) -> EncodedSupport:
        if errors:
            raise errors.pop()
        found = await get(*given)
        assert isinstance(found, EncodedSupport)
        return found

    monkeypatch.setattr(supports, "get", asked)
    errors.append(NotReadyError("It is getting ready."))
    problem(acme.classify(task, A), 409, "not-ready")
    until(lambda: acme.used("frames") == [2 * T])
    errors.append(RevisionConflictError("It was changed.", 2))
    assert acme.classify(task, A).status_code == 200
    assert acme.used("frames") == [3 * T]
    errors.append(AssertionError("It would be rebuilt."))
    problem(acme.classify(task, A), 429, "quota-exceeded")


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
    assert len(charged) - len(free) == 10
    assert not [one for one in free if "kshot:rates:" in one or "kshot:held:" in one]
