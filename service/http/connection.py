"""One request on its connection: id and log line, body, a client that leaves; pure ASGI."""

import asyncio
import contextlib
import logging
import math
import re
import secrets
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.background import spawn
from service.errors import RequestTooLargeError, UploadTooSlowError
from service.limits import Limits
from service.logs import OF_REQUEST
from service.metrics.meters import Meters
from service.tasks.allowance import Allowance

SAFE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
QUIET = frozenset({f"{v}/{name}" for v in ("", "/v1") for name in ("livez", "readyz", "metrics")})
LEFT_STATUS = 499  # for the log alone: nobody is there to read an answer
LINGER_S = 2.0  # a client that is still sending must be able to read its refusal
MIB = 2**20
READ_AWAY_BYTES = MIB  # of a refused body: cheaper for both sides than a new connection

log = logging.getLogger("kshot.request")


class RequestLog:
    """Gives each request an id and writes its line: no label, no clip, no query string.

    Args:
        app: The application inside.
        meters: Count each request.
    """

    def __init__(self, app: ASGIApp, *, meters: Meters) -> None:
        self.app = app
        self.meters = meters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        wanted = Headers(scope=scope).get("x-request-id", "")
        scope["kshot.request_id"] = wanted if SAFE_ID.fullmatch(wanted) else secrets.token_hex(8)
        about = {"request_id": scope["kshot.request_id"]}
        if (trace_id := scope.get("kshot.trace_id")) is not None:
            about["trace_id"] = trace_id
        OF_REQUEST.set(about)  # of this task alone: uvicorn gives each request one of its own
        start_s = time.monotonic()
        status = 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = scope["kshot.request_id"]
            await send(message)

        self.meters.in_flight += 1
        try:
            await self.app(scope, receive, noting)
        finally:
            self.meters.in_flight -= 1
            seconds = time.monotonic() - start_s
            route = getattr(scope.get("route"), "path", "-")
            code, of_route = scope.get("kshot.code"), route.removeprefix("/v1")
            self.meters.answered(scope["method"], of_route, status, code, seconds)
            if (receive_s := scope.get("kshot.receive_s")) is not None:
                self.meters.staged("receive", receive_s)
            self._write(scope, route, status, 1e3 * seconds)

    def _write(self, scope: Scope, route: str, status: int, ms: float) -> None:
        level = logging.DEBUG if scope["path"] in QUIET and status < 400 else logging.INFO
        fields = {
            **(OF_REQUEST.get() or {}),
            "method": scope["method"],
            "route": route,
            "status": status,
            "code": scope.get("kshot.code"),
            "bytes": scope.get("kshot.body_bytes", 0),
            "ms": round(ms, 1),
        }
        shown = {name: value for name, value in fields.items() if value is not None}
        log.log(level, "%s %s %s", scope["method"], route, status, extra={"fields": shown})


def too_large(limits: Limits) -> RequestTooLargeError:
    """Make the refusal of a body over the limit."""
    most = limits.request_bytes
    return RequestTooLargeError(
        f"The body has more than {most} bytes ({most / MIB:.3g} MiB); "
        "send fewer or shorter clips, or several requests."
    )


def declared_bytes(scope: Scope) -> int | None:
    """Return the length that the headers announce; None when they do not say."""
    headers = Headers(scope=scope)
    text = headers.get("content-length", "")
    if text.isascii() and text.isdigit():
        return int(text)
    return None if "transfer-encoding" in headers else 0


class UnreadBody:
    """The receive and send of a request whose body may not be read to its end.

    Args:
        scope: Of the request.
        receive: From the server.
        send: To the server.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.seen_bytes = 0
        self._scope = scope
        self._outer_receive = receive
        self._outer_send = send
        self._complete = False
        self._abandoned = False
        self._lingers = False

    async def send(self, message: Message) -> None:
        """Pass a message on; before the connection closes, give the client time to read."""
        if message["type"] == "http.response.start" and not self._complete:
            self._lingers = self._abandoned or must_close(self._scope, self.seen_bytes)
            if self._lingers:
                MutableHeaders(scope=message)["connection"] = "close"
        last = message["type"] == "http.response.body" and not message.get("more_body", False)
        if not (self._lingers and last):
            await self._outer_send(message)
            return
        await self._outer_send({**message, "more_body": True})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while (await self._outer_receive()).get("more_body", False):
                    pass
        await self._outer_send({"type": "http.response.body", "body": b"", "more_body": False})


class CountedBody(UnreadBody):
    """A body that is counted while it is read.

    Args:
        scope: Of the request.
        receive: From the server.
        send: To the server.
        limits: How large and how slow the body may be.
        allowance: Its deadline bounds the upload; its credits learn the true size at the end.
    """

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, *, limits: Limits, allowance: Allowance
    ) -> None:
        super().__init__(scope, receive, send)
        self._limits = limits
        self._allowance = allowance
        self.waited_s = 0.0  # for the body to come

    async def receive(self) -> Message:
        """Pass a message on.

        Raises:
            RequestTooLargeError: The body is over its cap.
            UploadTooSlowError: The body comes too slowly.
            DeadlineError: It is not there in time.
        """
        if self._complete:
            return await self._outer_receive()
        message = await self._next()
        self._complete = not message.get("more_body", False)
        self.seen_bytes += len(message.get("body", b""))
        if self.seen_bytes > self._limits.request_bytes:
            raise too_large(self._limits)
        if self._complete:
            self._allowance.credits.correct(bytes=self.seen_bytes)
        return message

    async def _next(self) -> Message:
        """Wait for a message as long as the slowest upload may take."""
        floor, deadline = self._limits.upload_bytes_s, self._allowance.deadline
        longest_s = (
            max(self._limits.upload_patience_s, self.seen_bytes / floor) if floor else math.inf
        )
        slow_s, late_s = longest_s - self.waited_s, deadline.left_s
        start_s = time.monotonic()
        try:
            async with asyncio.timeout(max(0.0, min(slow_s, late_s))):
                return await self._outer_receive()
        except TimeoutError:
            self._abandoned = True
            if late_s <= slow_s:  # whatever the clock says: a loop's timer may be a little early
                raise deadline.passed("receiving") from None
            raise UploadTooSlowError(
                f"The body came slower than {floor} bytes a second; send smaller clips."
            ) from None
        finally:
            self.waited_s += time.monotonic() - start_s


def must_close(scope: Scope, seen_bytes: int) -> bool:
    """Tell whether the connection must close after an answer to a body not read to its end.

    The server reads what is left of a small body. A long body, or a client that waits for
    permission to send, would block the connection.
    """
    declared = declared_bytes(scope)
    long = declared is None or declared - seen_bytes > READ_AWAY_BYTES
    return long or "expect" in Headers(scope=scope)


class DisconnectWatcher:
    """Waits, once the body has been read, for the client to go, and cancels the request then.

    The request runs in this very task, so the cancellation passes through whatever is inside, a
    `BaseHTTPMiddleware` too, which hides disconnects from what it wraps.

    Args:
        app: The application inside.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self.app(scope, receive, send)
            return
        client, request = _Client(receive, send), asyncio.current_task()
        assert request is not None
        watching = spawn(client.watch(request))
        try:
            await self.app(scope, client.receive, client.send)
        except asyncio.CancelledError:
            if not client.left or request.uncancel() > 0:
                raise  # somebody else's: the server stops
            scope["kshot.code"] = "client-left"
            await client.complete_answer()
        finally:
            watching.cancel()


class _Client:
    """The other end of one request."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self.left = False
        self._outer_receive = receive
        self._outer_send = send
        self._read = asyncio.Event()
        self._gone = asyncio.Event()
        self._answering = False
        self._answered = False
        self._sending = asyncio.Lock()  # no message is cut off: it would go out twice, or never

    async def receive(self) -> Message:
        """Pass a message of the body on; after the last one, wait until the client has left."""
        if self._read.is_set():
            await self._gone.wait()
            return {"type": "http.disconnect"}
        message = await self._outer_receive()
        if message["type"] == "http.disconnect":
            self._gone.set()
        if not message.get("more_body", False):
            self._read.set()
        return message

    async def send(self, message: Message) -> None:
        """Pass a message on."""
        self._answering = True
        last = message["type"] == "http.response.body" and not message.get("more_body", False)
        async with self._sending:
            await self._outer_send(message)
            self._answered = self._answered or last

    async def complete_answer(self) -> None:
        """Complete the answer, which nobody reads: the log outside expects one."""
        if not self._answering:
            await self.send({"type": "http.response.start", "status": LEFT_STATUS, "headers": []})
        if not self._answered:
            await self.send({"type": "http.response.body", "body": b""})

    async def watch(self, request: "asyncio.Task[None]") -> None:
        """Cancel a request when its client leaves before it is answered."""
        await self._read.wait()
        if self._gone.is_set():
            return  # it left while sending, which the reader of the body sees
        while (await self._outer_receive())["type"] != "http.disconnect":
            pass
        self._gone.set()
        async with self._sending:
            if not self._answered:
                self.left = True
                request.cancel()
