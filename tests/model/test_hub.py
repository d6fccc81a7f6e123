"""Weights from the hub: once, resumed, verified; without it, one sentence."""

import fcntl
import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import huggingface_hub.file_download
import pytest
from huggingface_hub import constants

from deploy.local_service import free_port
from model.backbones import hub as hub_module
from model.backbones.download import main as download
from model.backbones.hub import Lines, fetch
from model.backbones.opening import hub_files
from model.backbones.sources import ALIASES, HubFile, backbone_of
from model.errors import BackboneError
from tests.fake_hub import FakeHub, serving_hub

FILE = HubFile("owner/vit", "model.safetensors")
CONTENT = os.urandom(400_000)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with serving_hub() as serving:
        serving.files["owner/vit/model.safetensors"] = CONTENT
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", serving.template)
        monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 50_000)
        monkeypatch.setattr(huggingface_hub.file_download.time, "sleep", lambda _: None)
        yield serving


def files_of(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_file_is_downloaded_once(hub: FakeHub, tmp_path: Path) -> None:
    for _ in range(2):
        assert fetch(FILE, tmp_path).read_bytes() == CONTENT
    assert hub.ranges == [None]
    assert files_of(tmp_path) == ["owner/vit/model.safetensors"]


def test_a_broken_connection_goes_on_where_it_broke(hub: FakeHub, tmp_path: Path) -> None:
    hub.cut_after = 100_000
    assert fetch(FILE, tmp_path).read_bytes() == CONTENT
    assert hub.ranges == [None, "bytes=100000-"]


class Killed(Lines):
    """A bar that ends the process in the middle of a download."""

    def update(self, count: float = 1) -> None:
        super().update(count)
        if self.done >= 200_000:
            raise KeyboardInterrupt


def test_a_download_that_was_killed_goes_on_where_it_stopped(hub: FakeHub, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fetch(FILE, tmp_path, Killed)
    (part,) = files_of(tmp_path)
    assert part.endswith(".part")
    assert (tmp_path / part).stat().st_size == 150_000
    assert fetch(FILE, tmp_path).read_bytes() == CONTENT
    assert hub.ranges == [None, "bytes=150000-"]
    assert files_of(tmp_path) == ["owner/vit/model.safetensors"]


def test_what_arrives_damaged_is_refused_and_thrown_away(hub: FakeHub, tmp_path: Path) -> None:
    hub.damaged = True
    with pytest.raises(BackboneError, match=r"arrived damaged \(its SHA-256 is .*; start again"):
        fetch(FILE, tmp_path)
    hub.damaged = False
    assert fetch(FILE, tmp_path).read_bytes() == CONTENT
    assert hub.ranges == [None, None]
    assert files_of(tmp_path) == ["owner/vit/model.safetensors"]


def test_two_that_want_a_file_download_it_once(hub: FakeHub, tmp_path: Path) -> None:
    found: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: found.append(fetch(FILE, tmp_path).read_bytes()))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [CONTENT] * 3
    assert hub.ranges == [None]


@pytest.mark.parametrize("fault", ["killed", "damaged"])
def test_who_waits_for_a_download_that_fails_makes_the_file_whole(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    asked, lock, found = threading.Event(), fcntl.flock, list[bytes]()
    other = threading.Thread(target=lambda: found.append(fetch(FILE, tmp_path).read_bytes()))

    def flock(opened: BinaryIO, kind: int) -> None:
        if threading.current_thread() is other:
            asked.set()
        lock(opened, kind)

    class Joined(Lines):
        """A bar that lets the other one begin to wait in the middle of a download."""

        def update(self, count: float = 1) -> None:
            super().update(count)
            if self.done == 100_000:
                other.start()
                assert asked.wait(10)
                hub.damaged = False
            if self.done == 200_000 and fault == "killed":
                raise KeyboardInterrupt

    monkeypatch.setattr(hub_module.fcntl, "flock", flock)
    hub.damaged = fault == "damaged"
    with pytest.raises((KeyboardInterrupt, BackboneError)):
        fetch(FILE, tmp_path, Joined)
    other.join()
    assert found == [CONTENT]
    assert files_of(tmp_path) == ["owner/vit/model.safetensors"]


@pytest.mark.parametrize(
    ("status", "code", "told"),
    [
        (404, "EntryNotFound", "The hub has no model.safetensors of owner/vit"),
        (401, "RepoNotFound", "The hub has no model.safetensors of owner/vit"),
        (403, "GatedRepo", "after its licence was accepted"),
        (500, "", "the hub cannot be reached"),
    ],
)
def test_a_refusal_is_one_sentence_that_says_what_to_bring(
    hub: FakeHub, tmp_path: Path, status: int, code: str, told: str
) -> None:
    hub.refused["owner/vit/model.safetensors"] = (status, code)
    with pytest.raises(BackboneError, match=told) as raised:
        fetch(FILE, tmp_path)
    assert "KSHOT_BACKBONE_WEIGHTS" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.usefixtures("hub")
def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(BackboneError, match="KSHOT_MODEL_CACHE"):
        fetch(FILE, tmp_path / "file" / "cache")


def test_progress_is_a_line_every_ten_seconds(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [0.0]
    monkeypatch.setattr(hub_module.time, "monotonic", lambda: now[0])
    with caplog.at_level(logging.INFO, "kshot.model"), Lines(total=100_000_000, desc="x") as bar:
        for second in range(1, 31):
            now[0] = float(second)
            for _ in range(5):
                bar.update(500_000)
    assert caplog.messages == ["x: 23 of 100 MB", "x: 48 of 100 MB", "x: 73 of 100 MB"]


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody listen where the hub should be."""
    nowhere = f"http://127.0.0.1:{free_port()}"
    template = nowhere + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.mark.usefixtures("refused")
@pytest.mark.parametrize("alias", ALIASES)
def test_without_a_network_one_sentence_says_which_file_to_bring_and_where(
    alias: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    assert download([alias, "--cache", str(tmp_path)]) == 2
    assert time.monotonic() - began < 10
    (line,) = capsys.readouterr().err.splitlines()
    weights, *_ = hub_files(backbone_of(alias, None))
    for told in (
        f"{weights.name} of {weights.repository}",
        str(tmp_path),
        "KSHOT_BACKBONE_WEIGHTS",
        "`make models MODEL=NAME`",
    ):
        assert told in line


def test_the_command_fetches_ahead(
    hub: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = "timm/vit_base_patch16_dinov3.lvd1689m/model.safetensors"
    hub.files[wanted] = CONTENT
    assert download(["dinov3", "--cache", str(tmp_path)]) == 0
    assert files_of(tmp_path) == [wanted]
    assert json.loads(capsys.readouterr().out)["files"] == [str(tmp_path / wanted)]


def test_a_folder_is_nothing_to_download(capsys: pytest.CaptureFixture[str]) -> None:
    assert download(["compact"]) == 2
    assert "nothing to download" in capsys.readouterr().err
