"""What is refused or fails: it counts nothing, unless it is its client's fault."""

import pytest

from model.errors import KshotError
from service.errors import (
    DeadlineError,
    DeadlineUnmetError,
    DecoderBusyError,
    DeviceMemoryError,
    EngineError,
)
from tests.held_decoding import decoding_held
from tests.limited import A, B, Limited, T, fields, until
from tests.serving import (
    problem,
    query_files,
)


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
        assert fields(answer, "ratelimit")["tasks"]["r"] == 999
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
    for answer, times in ((added, 1), (put, 2), (made, 4)):
        assert fields(answer, "ratelimit")["frames"]["r"] == 10_000 - (frames[0] or 0) - times * T


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
    until(lambda: acme.used("frames", "clip_seconds") == before)


@pytest.mark.parametrize(
    ("timeout_ms", "error", "kept"),
    [
        ("3000", DeadlineError, 1),
        ("3000", DeadlineUnmetError, 1),
        ("3000", DeviceMemoryError, 0),
        ("60000", DeadlineError, 0),  # as clients send that want to wait
        (None, DeadlineError, 0),
        (None, DeadlineUnmetError, 0),
    ],
)
def test_only_a_deadline_shorter_than_usual_that_the_client_set_gives_nothing_back(
    limited: Limited,
    monkeypatch: pytest.MonkeyPatch,
    timeout_ms: str | None,
    error: type[KshotError],
    kept: int,
) -> None:
    """Else a short one would have clips decoded for nothing."""
    acme = limited.tenant(frames=1000)
    task = acme.registered()

    async def failing(*_: object, **__: object) -> None:
        raise error("Not done.")

    monkeypatch.setattr(limited.app.state.service.engine, "classify", failing)
    set_by_client = {} if timeout_ms is None else {"x-request-timeout-ms": timeout_ms}
    answer = acme.classify(task, A, **set_by_client)
    assert answer.status_code >= 500
    assert answer.json()["code"] == error.code
    assert fields(answer, "ratelimit")["frames"]["r"] == 1000 - (2 + kept) * T
    until(lambda: acme.used("frames") == [(2 + kept) * T])


@pytest.mark.parametrize(
    ("timeout_ms", "error", "kept"),
    [
        ("60000", EngineError, False),
        ("60000", DeadlineUnmetError, True),
        ("600000", DeadlineUnmetError, False),
        ("600000", DeadlineError, True),  # its events told something until then
    ],
)
def test_events_that_end_in_a_problem_are_given_back_unless_it_is_a_deadline(
    limited: Limited,
    monkeypatch: pytest.MonkeyPatch,
    timeout_ms: str,
    error: type[KshotError],
    kept: bool,
) -> None:
    acme = limited.tenant(frames=10_000)
    path = f"/tasks/{acme.registered()}/timeline"

    async def failing(*_: object, **__: object) -> None:
        raise error("Not done.")

    monkeypatch.setattr(limited.app.state.service.engine, "score_windows", failing)
    headers = {"accept": "text/event-stream", "x-request-timeout-ms": timeout_ms, **acme.headers}
    answer = acme.http.post(path, files=query_files(A), data={"window_s": "0.4"}, headers=headers)
    assert f'"code":"{error.code}"' in answer.text
    until(lambda: not limited.keeper._giving)  # what goes back is on its way with the last event
    assert (acme.used("frames") != [2 * T]) is kept


def test_an_accepted_task_that_the_machine_has_no_time_for_is_given_back(limited: Limited) -> None:
    acme = limited.tenant(frames=1000)
    with decoding_held(limited.app.state.service.pool) as gate:
        gate.error = DecoderBusyError("The machine is busy.")
        made = acme.register(prefer="wait=0")
        assert made.status_code == 202
        until(lambda: acme.used("frames") == [0])
        gate.error = None


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
