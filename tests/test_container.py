"""The image and the compose file keep what README and the design promise of them."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
FINAL = DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def test_image_runs_as_its_own_user() -> None:
    assert re.findall(r"^USER (\w+)$", FINAL, re.MULTILINE) == ["kshot"]
    assert "--uid 10001" in FINAL


def test_image_installs_nothing_after_the_builder() -> None:
    assert not re.search(r"\b(pip|apt-get|gcc)\b", FINAL)
    assert re.findall(r"^COPY (.*)$", FINAL, re.MULTILINE) == [
        "--from=builder /opt/kshot /opt/kshot"
    ]


def test_image_holds_the_core_and_the_service_alone() -> None:
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE)
    names = {name for line in copied for name in line.split()}
    allowed = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert names == {"pyproject.toml", "constraints.txt", "README.md", "LICENSE"} | {
        "model",
        "service",
    }
    assert names == {line[1:] for line in allowed if line.startswith("!")}


def test_image_asks_the_liveness_route_and_stops_on_sigterm() -> None:
    check = re.search(r"^HEALTHCHECK .*\n\s+CMD (\[.*\])$", FINAL, re.MULTILINE)
    assert check
    program = json.loads(check[1])
    assert program[:2] == ["python", "-c"]
    assert "/livez" in program[2]
    compile(program[2], "healthcheck", "exec")
    assert "\nSTOPSIGNAL SIGTERM\n" in FINAL


@pytest.mark.parametrize("name", SERVICES)
def test_containers_are_hardened_and_bounded(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert {"mem_limit", "pids_limit", "volumes", "tmpfs"} <= set(service)


def test_redis_syncs_before_it_answers_and_drops_nothing() -> None:
    command = " ".join(SERVICES["redis"]["command"])
    assert "--appendonly yes --appendfsync always" in command
    assert "--maxmemory-policy noeviction" in command
    assert SERVICES["service"]["depends_on"] == {"redis": {"condition": "service_healthy"}}


def test_only_this_machine_reaches_the_service_and_nothing_else_reaches_redis() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert len(ports) == 3
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert "ports" not in SERVICES["redis"]
    assert SERVICES["redis"]["networks"] == ["back"]
    assert COMPOSE["networks"]["back"] == {"internal": True}


def test_settings_given_by_compose_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SERVICES["service"]["environment"].items():
        monkeypatch.setenv(name, value or "")
    for name, value in re.findall(r"\b(KSHOT_\w+)=(\S+)", FINAL):
        if name not in SERVICES["service"]["environment"]:
            monkeypatch.setenv(name, value)
    settings = Settings.from_env()
    assert settings.store == "redis://redis:6379/0"
    assert (settings.host, settings.port) == ("0.0.0.0", 8000)
    assert settings.checkpoint == "causal"


@pytest.mark.parametrize("files", [["compose.yaml"], ["compose.yaml", "deploy/compose.gpu.yaml"]])
def test_compose_accepts_the_files(files: list[str]) -> None:
    program = shutil.which("docker-compose")
    if program is None:
        pytest.skip("no docker-compose on PATH: the files are not checked by it")
    options = [part for file in files for part in ("-f", file)]
    done = subprocess.run(
        [program, *options, "config", "--quiet"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
