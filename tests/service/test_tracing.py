"""Traces reach a real OTLP receiver: spans of a request, batches that link to them, no secrets."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from service.app import create_app
from service.container import Service
from service.errors import SettingsError
from service.settings import Settings
from service.tracing.starting import ENDPOINTS, tracing_from_env
from tests.held_device import device_held
from tests.service.test_logs import Kept, log, of_request
from tests.serving import moving_clip, query_files, register, serving_app

__all__ = ["log"]  # a fixture
SECRET = "never-in-traces"
WAIT_S = 20.0
CLIPS = {f"{SECRET} jump": [moving_clip(1)], f"{SECRET} wave": [moving_clip(2)]}


class Receiver(ThreadingHTTPServer):
    """Takes spans as a collector does."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Posted)
        self.bodies: list[bytes] = []

    def spans(self) -> list[Span]:
        sent = [ExportTraceServiceRequest.FromString(body) for body in [*self.bodies]]
        return [
            span
            for one in sent
            for resource in one.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def of_trace(self, trace: str) -> dict[str, list[Span]]:
        """Wait for the server's span of a trace, which is the last, and give all by name."""
        found: dict[str, list[Span]] = {}
        for span in self.until(lambda span: span.trace_id.hex() == trace):
            found.setdefault(span.name, []).append(span)
        return found

    def until(self, wanted: Callable[[Span], bool]) -> list[Span]:
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            found = [span for span in self.spans() if wanted(span)]
            if any(span.kind == Span.SPAN_KIND_SERVER for span in found):
                return found
            time.sleep(0.05)
        raise AssertionError(f"Waited {WAIT_S:g} s for spans; {len(self.spans())} came.")


class Posted(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        assert isinstance(self.server, Receiver)
        assert self.path == "/v1/traces"
        self.server.bodies.append(body)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(ExportTraceServiceResponse().SerializeToString())

    def log_message(self, *_: object) -> None:
        """Be silent."""


class Traced(NamedTuple):
    http: httpx.Client
    parts: Service
    receiver: Receiver


@pytest.fixture(scope="module")
def traced(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    store = tmp_path_factory.mktemp("traced") / "store"
    settings = Settings(
        checkpoint=str(checkpoint), store=f"sqlite:{store}", threads=1, decode_workers=1
    )
    with Receiver() as receiver, pytest.MonkeyPatch.context() as patch:
        threading.Thread(target=receiver.serve_forever, daemon=True).start()
        patch.setenv(ENDPOINTS[0], f"http://127.0.0.1:{receiver.server_port}")
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        app = create_app(settings)
        with serving_app(app) as http:
            yield Traced(http, app.state.service, receiver)
        receiver.shutdown()


def parent_of(number: int) -> tuple[str, dict[str, str]]:
    """Return the id of a caller's trace, and the header that it sends."""
    trace = f"{number:032x}"
    return trace, {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}


def test_a_classify_joins_the_trace_of_its_caller_with_a_span_for_each_stage(
    traced: Traced, log: Kept
) -> None:
    http, _, receiver = traced
    task = register(http, CLIPS)["id"]
    trace, header = parent_of(1)
    answer = http.post(
        f"/tasks/{task}/classify",
        files=query_files(moving_clip(3)),
        headers={**header, "x-request-id": "traced"},
    )
    assert answer.status_code == 200
    spans = receiver.of_trace(trace)
    (server,) = spans["POST /tasks/{task_id}/classify"]
    assert server.parent_span_id.hex() == "00f067aa0ba902b7"
    for name in ("upload.receive", "store.get", "decode", "queue.classify", "device.classify"):
        (span,) = spans[name]
        assert span.parent_span_id == server.span_id
        assert (
            server.start_time_unix_nano
            <= span.start_time_unix_nano
            <= span.end_time_unix_nano
            <= server.end_time_unix_nano + 1e7
        ), name
    facts = {each.key: each.value for each in spans["decode"][0].attributes}
    assert (facts["codec"].string_value, facts["frames"].int_value) == ("h264", 8)
    (line,) = of_request(log, "traced")
    assert line["trace_id"] == trace


def test_the_span_of_a_batch_links_to_each_request_in_it_and_theirs_to_it(traced: Traced) -> None:
    http, parts, receiver = traced
    task = register(http, CLIPS)["id"]
    traces = [parent_of(number) for number in (2, 3)]
    with device_held(parts.engine) as free, ThreadPoolExecutor(2) as threads:
        asked = [
            threads.submit(
                http.post,
                f"/tasks/{task}/classify",
                files=query_files(moving_clip(3)),
                headers=header,
            )
            for _, header in traces
        ]
        deadline = time.monotonic() + WAIT_S
        while parts.engine.batcher.waiting()["classify"][0] < 16:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        free.set()
        assert [each.result().status_code for each in asked] == [200, 200]
    spans = [receiver.of_trace(trace) for trace, _ in traces]
    (first,), (second,) = (each["device.classify"] for each in spans)
    (link,) = first.links
    assert [(each.trace_id, each.span_id) for each in second.links] == [
        (link.trace_id, link.span_id)
    ]
    (batch,) = (span for span in receiver.spans() if span.span_id == link.span_id)
    assert batch.name == "device.batch"
    assert not batch.parent_span_id
    assert {each.trace_id.hex() for each in batch.links} == {trace for trace, _ in traces}
    facts = {each.key: each.value for each in batch.attributes}
    assert (facts["clips"].int_value, facts["frames"].int_value) == (2, 16)


def test_a_registration_has_spans_of_its_clips_its_text_and_the_store(traced: Traced) -> None:
    http, _, receiver = traced
    trace, header = parent_of(4)
    with httpx.Client(base_url=http.base_url, headers=header, timeout=60) as client:
        register(client, CLIPS)
    spans = receiver.of_trace(trace)
    (encode,) = spans["support.encode"]
    assert len(spans["decode"]) == 2
    assert {"store.create", "text.encode", "device.register"} <= {*spans}
    assert {span.parent_span_id for span in spans["device.register"]} >= {encode.span_id}


def test_a_fault_is_in_its_span_by_code_alone(traced: Traced) -> None:
    http, _, receiver = traced
    task = register(http, CLIPS)["id"]
    trace, header = parent_of(5)
    answer = http.post(
        f"/tasks/{task}/classify", files=[("clip", (SECRET, b"none"))], headers=header
    )
    (span,) = receiver.of_trace(trace)["decode"]
    assert span.status.code == 2
    assert not span.status.message
    assert not span.events
    facts = {each.key: each.value.string_value for each in span.attributes}
    assert facts["error.type"] == answer.json()["code"]


def test_nothing_that_a_client_wrote_is_in_a_trace(traced: Traced) -> None:
    http, _, receiver = traced
    task = register(http, CLIPS, name=SECRET)["id"]
    trace, header = parent_of(6)
    for path in (f"/{SECRET}", f"/tasks?cursor={SECRET}", f"/tasks/{task}/labels/{SECRET} jump"):
        http.delete(path, headers={**header, "user-agent": SECRET, "host": f"{SECRET}.org"})
    http.request(SECRET.upper(), "/tasks", headers=header)
    receiver.of_trace(trace)
    assert len(receiver.spans()) > 4
    assert not any(SECRET.encode() in body.lower() for body in receiver.bodies)


def test_without_an_endpoint_nothing_is_imported() -> None:
    checked = (
        "import sys, service.tracing.starting as s; assert s.tracing_from_env() is None; "
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", checked], env={}, check=True, timeout=60)


def test_an_endpoint_without_opentelemetry_is_refused_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(ENDPOINTS[1], "http://127.0.0.1:1/v1/traces")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(SettingsError, match=r"pip install 'kshot\[otel\]'"):
        tracing_from_env()
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert tracing_from_env() is None
