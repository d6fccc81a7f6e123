"""The spans of a request, from its first byte to its passes on the device.

No label, file name, header or text of an error is in a span: names and codes alone.
"""

import functools
import importlib.metadata
import os
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, ParamSpec, TypeVar

from fastapi import FastAPI
from opentelemetry.context import Context
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    Status,
    StatusCode,
    get_current_span,
    set_span_in_context,
)
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from model.errors import KshotError
from service.decoding.pool import DecodePool
from service.engine.engine import Engine
from service.engine.work import Pass, Query, Work
from service.stores.protocol import OPS, TaskStore
from service.tasks.register import Tasks

P = ParamSpec("P")
Result = TypeVar("Result")
Facts = Callable[[Any], dict[str, Any]]
UNTRACED = r"/livez$,/readyz$,/metrics$,/v2/health/,/page/"
# What the instrumentation copies of a request and a client may have written.
PATHS = ("http.target", "http.url", "url.path", "url.full", "url.query")
HEADERS = ("http.user_agent", "user_agent.original", "http.server_name", "http.host")


class Tracing:
    """Makes spans and sends them away, in a thread of its own.

    Args:
        exporter: Where they go.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        about = {
            "service.name": os.environ.get("OTEL_SERVICE_NAME", "kshot"),
            "service.version": importlib.metadata.version("kshot"),
        }
        # Events of spans are exceptions with their sentences, which may name a label.
        self.provider = TracerProvider(
            resource=Resource.create(about), span_limits=SpanLimits(max_events=0)
        )
        self.provider.add_span_processor(BatchSpanProcessor(exporter))
        self.tracer = self.provider.get_tracer("kshot")

    def instrument(self, app: FastAPI) -> None:
        """Have each request of an application traced, as part of its caller's trace."""
        app.add_middleware(ReceivedBody, tracing=self)
        FastAPIInstrumentor.instrument_app(
            app,
            tracer_provider=self.provider,
            meter_provider=NoOpMeterProvider(),
            excluded_urls=UNTRACED,
            exclude_spans=["receive", "send"],
            server_request_hook=begun,
        )

    def attach(self, store: TaskStore, pool: DecodePool) -> None:
        """Have what every model's parts share traced where a traced request enters it."""
        for op in OPS:
            setattr(store, op, self.around(f"store.{op}", getattr(store, op)))
        pool.decode = self.around("decode", pool.decode, of_clip)  # type: ignore[method-assign]

    def attach_model(self, engine: Engine, tasks: Tasks) -> None:
        """Have the parts of one model traced."""
        encode = self.around("support.encode", engine.encode_support)
        engine.encode_support = encode  # type: ignore[method-assign]
        texts = tasks.texts
        texts.encode = self.around("text.encode", texts.encode)  # type: ignore[method-assign]
        if texts.describer is not None:
            describe = self.around("llm.describe", texts.describer.describe)
            texts.describer.describe = describe  # type: ignore[method-assign]
        engine.asked = asked
        engine.watch_with(self.passed)

    def close(self) -> None:
        """Send what is left."""
        self.provider.shutdown()

    def around(
        self,
        name: str,
        work: Callable[P, Coroutine[Any, Any, Result]],
        facts: Facts = lambda _: {},
    ) -> Callable[P, Coroutine[Any, Any, Result]]:
        """Make a span of each call within a traced request; `facts` are taken of its result."""

        @functools.wraps(work)
        async def traced(*args: P.args, **kwargs: P.kwargs) -> Result:
            if not get_current_span().is_recording():
                return await work(*args, **kwargs)
            with self.tracer.start_as_current_span(
                name, record_exception=False, set_status_on_exception=False
            ) as span:
                try:
                    result = await work(*args, **kwargs)
                except BaseException as error:
                    code = error.code if isinstance(error, KshotError) else type(error).__name__
                    span.set_attribute("error.type", code)
                    span.set_status(Status(StatusCode.ERROR))
                    raise
                span.set_attributes(facts(result))
                return result

        return traced

    def passed(self, done: Pass) -> None:
        """Make spans of a pass: of its queries by themselves, and of the batch that they share.

        The batch's span belongs to no request; it links to all, and theirs to it.
        """
        works = [work for work in done.works if work.asked_by is not None]
        if not works:
            return
        offset = time.time_ns() - int(1e9 * time.monotonic())
        started = int(1e9 * done.started) + offset
        ended = started + int(1e9 * done.seconds)
        kind = works[0].kind
        links = []
        if isinstance(works[0], Query):
            batch = self.tracer.start_span(
                "device.batch",
                Context(),
                links=[*{asker(work).span_id: Link(asker(work)) for work in works}.values()],
                attributes={"stage": kind, "clips": len(done.works), "frames": done.frames},
                start_time=started,
            )
            batch.end(ended)
            links = [Link(batch.get_span_context())]
        for work in works:
            parent = set_span_in_context(NonRecordingSpan(asker(work)))
            if links:
                since = int(1e9 * work.since) + offset
                self.tracer.start_span(f"queue.{kind}", parent, start_time=since).end(started)
            facts = {"frames": work.frames}
            span = self.tracer.start_span(
                f"device.{kind}", parent, links=links, attributes=facts, start_time=started
            )
            span.end(ended)


class ReceivedBody:
    """Makes a span of a body that comes; pure ASGI.

    Args:
        app: The application inside.
        tracing: Makes it.
    """

    def __init__(self, app: ASGIApp, *, tracing: Tracing) -> None:
        self.app = app
        self.tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or not get_current_span().is_recording():
            await self.app(scope, receive, send)
            return
        begun_ns, size, whole = 0, 0, False

        async def noting() -> Message:
            nonlocal begun_ns, size, whole
            begun_ns = begun_ns or time.time_ns()
            message = await receive()
            size += len(message.get("body", b""))
            if not whole and not message.get("more_body", False):
                whole = True
                self.tracing.tracer.start_span(
                    "upload.receive", attributes={"bytes": size}, start_time=begun_ns
                ).end()
            return message

        await self.app(scope, noting, send)


def begun(span: Span, scope: Scope) -> None:
    """Tell the log of a trace, and take out of its span what a client wrote."""
    if not span.is_recording():
        return
    scope["kshot.trace_id"] = f"{span.get_span_context().trace_id:032x}"
    known = getattr(span, "attributes", None) or {}
    route = str(known.get("http.route", "-"))
    for name in PATHS:
        if name in known:
            span.set_attribute(name, route)
    for name in HEADERS:
        if name in known:
            span.set_attribute(name, "-")


def asked(works: Sequence[Work]) -> None:
    """Note on works the span of who asks for them."""
    span = get_current_span()
    if span.is_recording():
        for work in works:
            work.asked_by = span.get_span_context()


def asker(work: Work) -> SpanContext:
    """Return the span of who asked for a work."""
    assert isinstance(work.asked_by, SpanContext)
    return work.asked_by


def of_clip(clip: Any) -> dict[str, Any]:  # noqa: ANN401  of whatever a span is made
    """Return what a span says of a clip that was read."""
    return {"codec": clip.codec, "frames": len(clip.frames_THWC), "duration_s": clip.duration_s}
