"""The files of docs/production.md: each program takes its own, and so does the service."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from service.stores.opening import open_store
from tests.redis_server import RedisServer

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "deploy" / "production"
PAGE = (ROOT / "docs" / "production.md").read_text(encoding="utf-8")


def test_the_page_uses_every_file_and_each_is_there() -> None:
    named = set(re.findall(r"\bdeploy/production/([\w.@-]+\w)", PAGE))
    assert named == {path.name for path in FOLDER.iterdir()}


async def test_a_service_takes_the_redis_of_the_page(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, {"bind": "127.0.0.1", "include": str(FOLDER / "redis.conf")})
    server.start()
    try:
        store = await open_store(server.url)
        await store.ping()
        await store.close()
        with server.client() as client:
            assert client.config_get("appendfsync") == {"appendfsync": "always"}
    finally:
        server.kill()


def test_nginx_takes_its_file(tmp_path: Path) -> None:
    if (nginx := shutil.which("nginx", path="/usr/sbin:/usr/bin")) is None:
        pytest.skip("There is no nginx here; install Debian's package nginx.")
    whole = tmp_path / "nginx.conf"
    inner = FOLDER / "nginx.conf"
    whole.write_text(f"pid {tmp_path}/pid; events {{}} http {{ include {inner}; }}")
    command = [nginx, "-t", "-e", str(tmp_path / "log"), "-p", str(tmp_path), "-c", str(whole)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_prometheus_takes_its_file(tmp_path: Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("There is no promtool here; install Debian's package prometheus.")
    text = (FOLDER / "prometheus.yml").read_text(encoding="utf-8")
    key, config = tmp_path / "kshot.key", tmp_path / "prometheus.yml"
    key.write_text("kshot_key")
    here = text.replace("/opt/kshot", str(ROOT)).replace("/etc/prometheus/kshot.key", str(key))
    config.write_text(here, encoding="utf-8")
    command = ["promtool", "check", "config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_replicas_of_the_unit_are_those_that_nginx_and_prometheus_know() -> None:
    ports = set(re.findall(r"kshot@(\d+)", PAGE))
    for name in ("nginx.conf", "prometheus.yml"):
        text = (FOLDER / name).read_text(encoding="utf-8")
        assert set(re.findall(r"127\.0\.0\.1:(800[1-9])\b", text)) == ports, name
    unit = (FOLDER / "kshot@.service").read_text(encoding="utf-8")
    assert "Environment=KSHOT_PORT=%i" in unit
    assert "EnvironmentFile=/etc/kshot.env" in unit
    assert "> /etc/kshot.env" in PAGE
