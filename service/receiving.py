"""Counts the bytes of bodies as they come, in pure ASGI; no header is trusted for it."""

import asyncio
import contextlib
import time

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.refusals import RequestTooLargeError, ServerFullError, UploadTooSlowError

LINGER_S = 2.0  # a client that is still sending must be able to read its refusal
MIB = 2**20


class BodyLimit:
    """Stops a request at the cap, and new bodies when all of them together are too much.

    Args:
        app: The application inside.
        max_request_bytes: Cap of one body.
        max_inflight_bytes: Cap of all bodies of running requests together.
        min_bytes_s: A body that comes slower is given up.
        patience_s: Seconds of waiting before that counts.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_request_bytes: int,
        max_inflight_bytes: int,
        min_bytes_s: int = 0,
        patience_s: float = 10.0,
    ) -> None:
        self.app = app
        self.max_request_bytes = max_request_bytes
        self.max_inflight_bytes = max_inflight_bytes
        self.min_bytes_s = min_bytes_s
        self.patience_s = patience_s
        self.inflight_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request with its body counted."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body = _CountedBody(self, receive, send, _declared_bytes(scope))
        try:
            await self.app(scope, body.receive, body.send)
        finally:
            self.inflight_bytes -= body.seen_bytes
            scope["kshot.body_bytes"] = body.seen_bytes


class _CountedBody:
    """One request's receive and send."""

    def __init__(self, limit: BodyLimit, receive: Receive, send: Send, declared: int) -> None:
        self.limit = limit
        self.outer_receive = receive
        self.outer_send = send
        self.declared_bytes = declared
        self.seen_bytes = 0
        self.waited_s = 0.0
        self.complete = False
        self.refused = False

    async def receive(self) -> Message:
        """Pass a message on.

        Raises:
            RequestTooLargeError: The body is over its cap.
            ServerFullError: All bodies together are over theirs.
            UploadTooSlowError: The body comes too slowly.
        """
        if self.complete:
            return await self.outer_receive()
        self._check(self.declared_bytes, 0)
        message = await self._next()
        self.complete = not message.get("more_body", False)
        size = len(message.get("body", b""))
        self.seen_bytes += size
        self.limit.inflight_bytes += size
        self._check(self.seen_bytes, size)
        return message

    async def send(self, message: Message) -> None:
        """Pass a message on; what a refused client still sends is read away first."""
        last = message["type"] == "http.response.body" and not message.get("more_body", False)
        if not (self.refused and last):
            await self.outer_send(message)
            return
        await self.outer_send({**message, "more_body": True})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while (await self.outer_receive()).get("more_body", False):
                    pass
        await self.outer_send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _next(self) -> Message:
        """Wait for a message as long as the slowest upload may take."""
        floor, patience_s = self.limit.min_bytes_s, self.limit.patience_s
        if not floor:
            return await self.outer_receive()
        left_s = max(patience_s, self.seen_bytes / floor) - self.waited_s
        begun = time.monotonic()
        try:
            async with asyncio.timeout(max(0.0, left_s)):
                return await self.outer_receive()
        except TimeoutError:
            self.refused = True
            raise UploadTooSlowError(
                f"The body came slower than {floor} bytes a second; send smaller clips."
            ) from None
        finally:
            self.waited_s += time.monotonic() - begun

    def _check(self, size: int, fresh: int) -> None:
        most = self.limit.max_request_bytes
        if size > most:
            self.refused = True
            raise RequestTooLargeError(
                f"The body has more than {most} bytes ({most / MIB:.3g} MiB); "
                "send fewer or shorter clips, or several requests."
            )
        if fresh and self.limit.inflight_bytes > self.limit.max_inflight_bytes:
            self.refused = True
            raise ServerFullError(
                "The server is receiving as many bytes as it may at once; ask again in a moment.",
                retry_after_s=2,
            )


def _declared_bytes(scope: Scope) -> int:
    text = Headers(scope=scope).get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() else 0
