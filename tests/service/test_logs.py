"""The lines of the log: JSON with what is needed to follow a request, and no word of a client."""

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from service.logs import JsonLines, hashed, start_logging
from service.settings import Settings
from tests.serving import classify, moving_clip, query_files, register

SECRET = "never-in-logs"
Lines = Callable[[], list[dict[str, Any]]]


class Kept(logging.Handler):
    """Keeps what would be written."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonLines())
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name not in ("httpx", "uvicorn.access"):  # the test's; the service has them off
            self.lines.append(self.format(record))


@pytest.fixture
def log() -> Iterator[Kept]:
    kept, root = Kept(), logging.getLogger()
    level = root.level
    root.addHandler(kept)
    root.setLevel(logging.INFO)
    yield kept
    root.removeHandler(kept)
    root.setLevel(level)


def of_request(log: Kept, request_id: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in log.lines]
    return [line for line in lines if line.get("request_id") == request_id]


def test_a_classify_writes_one_line_with_its_work_and_where_its_time_went(
    client: httpx.Client, clips: dict[str, list[bytes]], log: Kept
) -> None:
    task = register(client, clips)["id"]
    answer = client.post(
        f"/tasks/{task}/classify",
        files=query_files(moving_clip(10), moving_clip(20)),
        headers={"x-request-id": "seen"},
    )
    assert answer.status_code == 200
    (line,) = of_request(log, "seen")
    shown = answer.json()["timing_ms"]
    assert line["logger"] == "kshot.request"
    assert (line["method"], line["route"]) == ("POST", "/tasks/{task_id}/classify")
    assert (line["status"], line["frames"]) == (200, 16)
    for stage in ("decode", "queue", "compute"):
        assert line[f"{stage}_ms"] == pytest.approx(shown[stage], abs=0.06)
    assert line["ms"] >= line["compute_ms"]


def test_what_is_said_during_a_request_names_it(client: httpx.Client, log: Kept) -> None:
    refused = client.post("/tasks", content=b"x", headers={"x-request-id": "named"})
    (line,) = of_request(log, "named")
    assert line["code"] == refused.json()["code"]
    assert "tenant" not in line, "nobody needs a key here"
    logging.getLogger("kshot.tasks").info("by itself")
    assert "request_id" not in json.loads(log.lines[-1])


def test_no_label_file_name_header_or_query_of_a_client_is_logged(
    client: httpx.Client, clips: dict[str, list[bytes]], log: Kept
) -> None:
    labels = {f"{SECRET} {label}": given for label, given in clips.items()}
    task = register(client, labels, name=SECRET)["id"]
    classify(client, task, moving_clip(10))
    headers = {"user-agent": SECRET, "authorization": f"Bearer {SECRET}", "x-forwarded-for": SECRET}
    client.get(f"/tasks?limit=1&cursor={SECRET}", headers={**headers, "referer": SECRET})
    client.get(f"/{SECRET}", headers={"x-request-id": f"{SECRET} !"})
    client.request(SECRET.upper(), "/tasks")
    client.post(f"/tasks/{task}/classify", files=[("clip", (SECRET, SECRET.encode()))])
    client.delete(f"/tasks/{task}/labels/{SECRET} jump")
    assert len(log.lines) >= 6
    assert SECRET not in "\n".join(log.lines).lower()


def test_the_form_of_lines_is_a_setting(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KSHOT_LOG_FORMAT", "text")
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()  # pytest's own, which would be closed
    try:
        for form, starts in (("json", "{"), (Settings.from_env().log_format, "1")):
            start_logging(form)
            logging.getLogger("kshot.service").warning("said", extra={"fields": {"ms": 1}})
            written = capsys.readouterr().err
            assert written.startswith("{") is (starts == "{"), written
            assert "said" in written
    finally:
        logging.captureWarnings(capture=False)
        root.handlers[:] = handlers
        root.setLevel(level)


def test_a_tenant_is_logged_under_the_same_hash_everywhere() -> None:
    assert hashed("acme") == "822b33ad87c1"
    assert hashed("acme") != hashed("acne")
