"""API keys over HTTP: who is let in, to what, and that tenants do not see each other."""

import asyncio
import contextlib
import json
import logging
import re
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from fastapi import FastAPI
from starlette.routing import Mount

from service import admin
from service.app import create_app
from service.errors import SettingsError
from service.http.access.scopes import PUBLIC, PUBLIC_FOLDERS, SCOPES
from service.http.routes.dependencies import entrance
from service.keys import ring as ringing
from service.keys.key import KeyRecord
from service.keys.opening import open_keys
from service.keys.ring import Failures, KeyRing, is_loopback, ring_of
from service.logs import JsonLines, hashed
from service.preflight import check_store
from service.settings import Settings
from service.stores.opening import open_store
from service.stores.records import place_of, places_of
from tests.serving import moving_clip, problem, query_files, serving_app, support_files
from tests.stored_tasks import a_task, pictures_of

CLIPS = {"jump": [moving_clip(10)], "wave": [moving_clip(20)]}
NEVER = "0" * 32


def kshot_admin(
    store: str, *words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """Run the command, which must do its work, and return what it prints."""
    monkeypatch.setattr("sys.argv", ["kshot-admin", "keys", "--store", store, *words])
    assert admin.main() == 0
    return capsys.readouterr().out.strip()


def make(store: str, tenant: str = "default", scopes: str = "read,classify,write") -> str:
    """Make a key and return its token."""

    async def made() -> str:
        from service.keys.key import SCOPES as ALL
        from service.keys.key import make_key

        keys = open_keys(store)
        wanted = tuple(scope for scope in ALL if scope in scopes.split(","))
        record, token = make_key("test", tenant, wanted, 0.0)
        await keys.put(record)
        await keys.close()
        return token

    return asyncio.run(made())


async def kept(store: str, token: str) -> KeyRecord | None:
    keys = open_keys(store)
    try:
        return await keys.get(token.split("_")[1])
    finally:
        await keys.close()


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


class Locked:
    """A running service whose store has keys."""

    def __init__(self, store: str, app: FastAPI, http: httpx.Client, old: str) -> None:
        self.store, self.app, self.http, self.old = store, app, http, old
        self.acme = bearer(make(store, "acme"))
        self.other = bearer(make(store, "acme-2"))
        self.plain = bearer(make(store))
        self.admin = bearer(make(store, scopes="admin"))

    def forget(self) -> None:
        """Have the service ask the store for every key, and forgive every failure."""
        ring = self.app.state.service.ground.ring
        assert isinstance(ring, KeyRing)
        ring._known.clear()
        ring.failures = Failures(ring._clock)

    def register(self, headers: dict[str, str]) -> str:
        answer = self.http.post("/tasks", files=support_files(CLIPS), headers=headers)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])


@pytest.fixture(scope="module")
def locked(url: str, checkpoint: Path) -> Iterator[Locked]:
    """Start an open service, and lock it."""
    old = asyncio.run(stored_before_there_were_keys(url))
    settings = Settings(checkpoint=str(checkpoint), store=url, threads=1, decode_workers=1)
    app = create_app(settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("service.keys.locking.LOOK_S", 0.05)
        with serving_app(app) as http:
            assert http.get("/tasks").status_code == 200
            make(url)
            late = time.monotonic() + 20
            while http.get("/tasks").status_code != 401:
                assert time.monotonic() < late, "the first key does not lock the service"
                time.sleep(0.02)
            yield Locked(url, app, http, old)


async def stored_before_there_were_keys(url: str) -> str:
    """Make the store, with one task under an id as they were before 2026-11-29."""
    record = a_task(task_id="9f" * 16)
    first, behind = places_of("")
    assert first <= place_of(record) < behind
    assert re.fullmatch(r"[0-9a-f]{16}:(9f){16}", place_of(record))
    store = await open_store(url)
    await store.create(record, pictures_of(record))
    await store.close()
    return record.task_id


@pytest.fixture(autouse=True)
def forgiven(request: pytest.FixtureRequest) -> None:
    if "locked" in request.fixturenames:
        request.getfixturevalue("locked").forget()


def test_logs_have_the_hash_of_a_tenant_and_nothing_of_its_key(
    locked: Locked, caplog: pytest.LogCaptureFixture
) -> None:
    token = locked.acme["authorization"].split()[1]
    with caplog.at_level(logging.INFO, "kshot"):
        locked.http.get("/tasks", headers=locked.acme)
        locked.http.get("/tasks", headers=bearer(f"{token[:-4]}xxxx"))
        late, lines = time.monotonic() + 20, list[logging.LogRecord]()
        while len(lines) < 2 and time.monotonic() < late:  # they are written behind the answers
            time.sleep(0.02)
            lines = [each for each in caplog.records if each.name == "kshot.request"]
    let_in, refused = (each.__dict__["fields"] for each in lines)
    assert let_in["tenant"] == hashed("acme")
    assert refused["status"] == 401
    assert "tenant" not in refused
    text = "".join(JsonLines().format(record) for record in caplog.records)
    assert "acme" not in text
    assert not any(part in text for part in token.split("_")[1:])


class Shown(NamedTuple):
    """One route of the app, as it is served."""

    verb: str
    template: str
    operation: str | None
    passes: set[object]  # its dependencies

    @property
    def path(self) -> str:
        return re.sub(r"\{\w+(:path)?\}", NEVER, self.template)

    @property
    def public(self) -> bool:
        return self.path in PUBLIC or self.path.startswith(PUBLIC_FOLDERS)


def routes_of(app: FastAPI) -> list[Shown]:
    found = []
    for route in app.routes:
        if isinstance(route, Mount):
            found.append(Shown("GET", f"{route.path}/swagger-ui.css", None, set()))
            continue
        included = getattr(route, "effective_route_contexts", None)
        for each in (route,) if included is None else included():
            passes = {one.call for one in each.dependant.dependencies} if included else set()
            name = getattr(each, "operation_id", None)
            found += [Shown(verb, each.path, name, passes) for verb in sorted(each.methods)]
    return found


def test_every_route_declares_its_scope_and_passes_the_one_entrance() -> None:
    names = set()
    for route in routes_of(create_app(Settings())):
        needed = SCOPES.get(route.operation or "", "none")
        if route.public:
            assert needed is None or route.operation is None, route
            continue
        assert needed != "none", f"{route.path}: no scope in service/http/access/scopes.py"
        assert needed is not None, f"{route.path} is public, and not in PUBLIC"
        assert entrance in route.passes, route
        if "/tasks/{" in route.template:
            assert "/tasks/{task_id}" in route.template, f"{route}: the entrance reads task_id"
        names.add(route.operation)
    assert len(names) >= 18


def test_no_route_but_health_the_page_and_the_document_answers_without_a_key(
    locked: Locked,
) -> None:
    asked = [(route.verb, route.path) for route in routes_of(locked.app)]
    assert len(asked) > 50
    for verb, path in [*asked, ("GET", "/no/such/route"), ("POST", "/livez"), ("POST", "/")]:
        answer = locked.http.request(verb, path)
        public = path in PUBLIC or path.startswith(PUBLIC_FOLDERS)
        if public and verb in ("GET", "HEAD"):
            assert answer.status_code in (200, 404), (verb, path)  # there is no page/000
        elif verb == "HEAD":
            assert answer.status_code == 401
        else:
            problem(answer, 401, "key-missing")
            assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "sent",
    [
        "Bearer",
        "Bearer kshot_",
        "Bearer sk_0123456789abcdef_" + "0" * 64,
        "Basic kshot_0123456789abcdef_" + "0" * 64,
        "Bearer kshot_0123456789abcdef_" + "0" * 64,
        "Bearer kshot_" + "٣" * 16 + "_" + "0" * 64,
        "Bearer kshot_0123456789abcdef_" + "ё" * 64,
    ],
)
def test_what_is_no_key_of_this_service_is_refused(locked: Locked, sent: str) -> None:
    answer = locked.http.get("/tasks", headers={b"authorization": sent.encode()})  # type: ignore[dict-item]
    problem(answer, 401, "key-invalid")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "0" * 64 not in answer.text


def test_two_keys_in_one_request_are_refused(locked: Locked) -> None:
    headers = [("authorization", one["authorization"]) for one in (locked.acme, locked.acme)]
    problem(locked.http.get("/tasks", headers=headers), 401, "key-invalid")
    assert locked.http.get("/tasks", headers=locked.acme).status_code == 200


def test_a_key_does_what_its_scopes_say_and_nothing_else(locked: Locked) -> None:
    ask = locked.http.request
    reader = bearer(make(locked.store, "acme", "read"))
    task = locked.register(locked.acme)
    assert ask("GET", f"/tasks/{task}", headers=reader).status_code == 200
    files = query_files(moving_clip(8))
    path = f"/v1/tasks/{task}/classify"
    problem(ask("POST", path, files=files, headers=reader), 403, "scope-missing")
    problem(ask("DELETE", f"/tasks/{task}", headers=reader), 403, "scope-missing")
    problem(ask("GET", "/metrics", headers=locked.acme), 403, "scope-missing")
    problem(ask("GET", "/tasks", headers=locked.admin), 403, "scope-missing")
    assert ask("GET", "/metrics", headers=locked.admin).status_code == 200
    assert ask("POST", path, files=files, headers=locked.acme).status_code == 200


def test_a_tenant_s_tasks_are_to_others_as_tasks_that_never_were(locked: Locked) -> None:
    ask = locked.http.request
    task, plain = locked.register(locked.acme), locked.register(locked.plain)
    never = task[:-4] + ("0000" if task[-4:] != "0000" else "1111")
    asked_of = [route for route in routes_of(locked.app) if "{task_id}" in route.template]
    assert len(asked_of) > 25
    for verb, path in [(route.verb, route.path) for route in asked_of]:
        for stranger in (locked.other, locked.plain):
            answers = [
                problem(
                    ask(verb, path.replace(NEVER, asked, 1), headers=stranger),
                    404,
                    "task-not-found",
                )
                for asked in (task, never)
            ]
            told = [
                answer["detail"].replace(asked, "ID")
                for answer, asked in zip(answers, (task, never), strict=True)
            ]
            assert told[0] == told[1]
            mine = ask("GET", f"/tasks/{NEVER}", headers=locked.plain).json()["detail"]
            assert told[0] == mine.replace(NEVER, "ID")  # and as its own that never was
        problem(
            ask(verb, path.replace(NEVER, plain, 1), headers=locked.acme), 404, "task-not-found"
        )
    assert ask("GET", f"/tasks/{task}", headers=locked.acme).status_code == 200
    assert ask("GET", f"/tasks/{plain}", headers=locked.plain).status_code == 200


def test_a_tenant_lists_its_own_tasks_page_by_page(locked: Locked) -> None:
    ask = locked.http.get
    fresh = bearer(make(locked.store, "acme-0"))
    assert ask("/tasks", headers=fresh).json()["tasks"] == []
    made = [locked.register(fresh), locked.register(fresh)]
    other = locked.register(locked.other)
    first = ask("/tasks?limit=1", headers=fresh).json()
    cursor = first["next_cursor"]
    second = ask(f"/tasks?limit=1&cursor={cursor}", headers=fresh).json()
    assert [page["tasks"][0]["id"] for page in (first, second)] == made[::-1]
    assert second["next_cursor"] is None
    stolen = ask(f"/tasks?cursor={cursor}", headers=locked.other).json()["tasks"]
    assert not {task["id"] for task in stolen} & {*made}
    assert other in [task["id"] for task in ask("/tasks", headers=locked.other).json()["tasks"]]


def test_a_task_from_before_there_were_keys_is_the_default_tenant_s(locked: Locked) -> None:
    ask = locked.http.get
    assert ask(f"/tasks/{locked.old}", headers=locked.plain).status_code == 200
    listed = ask("/tasks?limit=100", headers=locked.plain).json()["tasks"]
    assert locked.old in [task["id"] for task in listed]
    problem(ask(f"/tasks/{locked.old}", headers=locked.acme), 404, "task-not-found")
    listed = ask("/tasks?limit=100", headers=locked.acme).json()["tasks"]
    assert locked.old not in [task["id"] for task in listed]


def test_an_exported_task_becomes_the_importer_s_own(locked: Locked) -> None:
    content = locked.http.get(
        f"/tasks/{locked.register(locked.acme)}/export", headers=locked.acme
    ).content
    headers = {**locked.other, "content-type": "application/zip"}
    task = locked.http.post("/tasks/import", content=content, headers=headers).json()["id"]
    assert locked.http.get(f"/tasks/{task}", headers=locked.other).status_code == 200
    assert locked.http.get(f"/tasks/{task}", headers=locked.acme).status_code == 404


def test_the_command_asks_for_the_model_with_a_key_of_the_scope_admin(
    locked: Locked, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = []
    for headers in (locked.admin, locked.plain, {}):
        token = headers.get("authorization", "").removeprefix("Bearer ")
        monkeypatch.setenv("KSHOT_API_KEY", token)
        url = str(locked.http.base_url)
        monkeypatch.setattr("sys.argv", ["kshot-admin", "model", "--url", url, "show"])
        found.append((admin.main(), capsys.readouterr()))
    assert [status for status, _ in found] == [0, 1, 1]
    assert "\tmay serve compact, causal" in found[0][1].out
    assert [said.err.split()[0] for _, said in found[1:]] == ["[scope-missing]", "[key-missing]"]


def test_keys_are_made_listed_rotated_and_revoked_beside_a_running_service(
    locked: Locked, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*words: str) -> str:
        return kshot_admin(locked.store, *words, monkeypatch=monkeypatch, capsys=capsys)

    def status(token: str) -> int:
        return locked.http.get("/tasks", headers=bearer(token)).status_code

    monkeypatch.setattr(ringing, "FRESH_S", 0.0)
    first = run("make", "--name", "CI 🎬", "--tenant", "acme", "--scopes", "read")
    key_id, secret = first.removeprefix("kshot_").split("_")
    line = next(line for line in run("list").splitlines() if key_id in line)
    assert line.split("\t")[1:4] == ["valid", "acme", "read"]
    assert secret not in run("list")
    assert status(first) == 200
    second = run("rotate", key_id)
    assert (status(first), status(second)) == (401, 200)
    run("revoke", key_id)
    assert status(second) == 401
    assert "revoked" in next(line for line in run("list").splitlines() if key_id in line)


def test_the_store_has_no_secret(locked: Locked, tmp_path: Path) -> None:
    token = make(locked.store)
    record = asyncio.run(kept(locked.store, token))
    assert record is not None
    assert token.split("_")[2] not in json.dumps(str(record))
    twin = asyncio.run(kept(locked.store, make(locked.store)))
    assert twin is not None
    assert twin.salt != record.salt
    if locked.store.startswith("sqlite:"):
        path = locked.store.removeprefix("sqlite:")
        with contextlib.closing(sqlite3.connect(path)) as db:
            copy = tmp_path / "copy.db"
            db.execute("VACUUM INTO ?", (str(copy),))
        assert token.split("_")[2].encode() not in copy.read_bytes()


def test_wrong_keys_of_an_address_are_limited_and_right_ones_are_not(locked: Locked) -> None:
    assert locked.http.get("/tasks", headers=locked.acme).status_code == 200
    wrong = bearer("kshot_0123456789abcdef_" + "0" * 64)
    for _ in range(ringing.MOST_FAILURES):
        problem(locked.http.get("/tasks", headers=wrong), 401, "key-invalid")
    refused = locked.http.get("/tasks", headers=wrong)
    assert problem(refused, 429, "too-many-failures")["retryable"]
    assert 1 <= int(refused.headers["retry-after"]) <= ringing.WINDOW_S
    assert locked.http.get("/tasks", headers=locked.acme).status_code == 200
    assert locked.http.get("/livez").status_code == 200


def test_failures_are_forgotten_in_time_and_take_bounded_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    failures = Failures(lambda: now)
    monkeypatch.setattr(ringing, "ADDRESSES", 10)
    for address in range(50):
        failures.note(str(address))
    assert len(failures) == 10
    for _ in range(ringing.MOST_FAILURES):
        failures.note("here")
    assert failures.wait_s("here") == ringing.WINDOW_S
    now = ringing.WINDOW_S
    assert failures.wait_s("here") == 0


async def test_without_a_key_only_this_machine_is_served(tmp_path: Path) -> None:
    from service.keys.opening import make_sure_of

    store = f"sqlite:{tmp_path}/kshot.db"
    await make_sure_of(store)
    assert await ring_of(Settings(store=store)) is None
    with pytest.raises(SettingsError, match="keys make"):
        await ring_of(Settings(store=store, host="0.0.0.0"))
    with pytest.raises(SettingsError, match="KSHOT_OPEN=1"):
        await asyncio.to_thread(check_store, Settings(store=store, host="0.0.0.0"))
    assert await ring_of(Settings(store=store, host="0.0.0.0", open=True)) is None
    await asyncio.to_thread(make, store)
    for host, opened in (("127.0.0.1", False), ("0.0.0.0", True)):
        ring = await ring_of(Settings(store=store, host=host, open=opened))
        assert ring is not None
        await ring.close()


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        *[(host, True) for host in ("127.0.0.1", "127.8.0.1", "::1", "localhost")],
        *[(host, False) for host in ("0.0.0.0", "::", "", "10.1.2.3")],
    ],
)
def test_which_addresses_reach_this_machine_alone(host: str, loopback: bool) -> None:
    assert is_loopback(host) == loopback
