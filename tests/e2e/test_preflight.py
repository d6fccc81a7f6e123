"""What an operator mistypes is told before torch is imported or a model is loaded."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.local_service import ROOT, free_port
from service import preflight
from service.settings import Settings
from service.stores.errors import StoreUnavailableError

CPU_S = 2.0  # of a process that refuses to start; loading alone takes more
TORCH = " torch\n"  # a line of `-X importtime`


def refusal(tmp_path: Path, **settings: object) -> str:
    """Start the service, which must refuse; give its last line."""
    env = {"PATH": "/usr/bin:/bin", "KSHOT_STORE": f"sqlite:{tmp_path / 'kshot.db'}"}
    env |= {f"KSHOT_{name.upper()}": str(value) for name, value in settings.items()}
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-X", "importtime", "-m", "service"], cwd=ROOT, env=env, stderr=output
        )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    said = log.read_text()
    assert process.returncode == 2, said[-3000:]
    assert "Traceback" not in said
    assert TORCH not in said
    assert usage.ru_utime + usage.ru_stime < CPU_S
    return said.splitlines()[-1]


def test_a_taken_port_is_told_at_once(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        said = refusal(tmp_path, port=port)
    assert f"Port {port} of 127.0.0.1" in said
    assert "KSHOT_PORT" in said


def test_an_address_that_is_not_ours_is_told_at_once(tmp_path: Path) -> None:
    assert "of 192.0.2.1 cannot be had" in refusal(tmp_path, host="192.0.2.1")


def test_a_redis_that_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    url = f"redis://:secret@127.0.0.1:{free_port()}/0"
    said = refusal(tmp_path, store=url, port=0)
    assert f"KSHOT_STORE={url.replace(':secret', '***')}" in said
    assert "secret" not in said
    assert "Connect call failed" in said
    assert "; start the store, or correct the address" in said


def test_a_redis_that_never_answers_is_told_at_once(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"redis://127.0.0.1:{mute.getsockname()[1]}/0"
        assert "nobody answered within 1 s" in refusal(tmp_path, store=url, port=0)


def test_a_file_on_a_slow_disk_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "STORE_S", 0.0)
    preflight.check_store(Settings(store=f"sqlite:{tmp_path / 'kshot.db'}"))
    with pytest.raises(StoreUnavailableError, match="nobody answered"):
        preflight.check_store(Settings(store=f"redis://127.0.0.1:{free_port()}/0"))


def test_a_store_of_no_kind_is_told_at_once(tmp_path: Path) -> None:
    assert "'postgres'" in refusal(tmp_path, store="postgres://127.0.0.1/tasks", port=0)


def test_a_file_that_is_no_store_is_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("not a database, but long enough to be looked at" * 9)
    said = refusal(tmp_path, store=f"sqlite:{file}", port=0)
    assert "no SQLite database" in said
    assert said.count(str(file)) == 1


def test_a_setting_that_is_none_is_told_at_once(tmp_path: Path) -> None:
    assert "KSHOT_STORE" in refusal(tmp_path, stoer="x")


def test_a_checkpoint_that_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    said = refusal(tmp_path, checkpoint=tmp_path / "nothing", port=0)
    assert f"There is no model '{tmp_path / 'nothing'}'" in said


def test_a_torn_checkpoint_is_told_at_once(tmp_path: Path, checkpoint: Path) -> None:
    torn = tmp_path / "torn"
    shutil.copytree(checkpoint, torn)
    weights = torn / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    said = refusal(tmp_path, checkpoint=torn, port=0)
    assert f"{torn} cannot be read" in said


def test_a_weights_file_that_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "clip.safetensors"
    said = refusal(tmp_path, checkpoint="clip", backbone_weights=file, port=0)
    assert f"{file} cannot be read" in said
