"""How quotas come to a service: by `kshot-admin quotas`, also while it runs."""

import time
from pathlib import Path

import pytest

from service import admin
from service.app import create_app
from service.settings import Settings
from tests.limited import CLIPS, A, B
from tests.serving import (
    problem,
    query_files,
    serving_app,
    support_files,
)


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
