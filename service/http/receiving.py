"""Counts the bytes of one body as they come, and sees off a client whose body is not read."""

import asyncio
import contextlib
import math
import time
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import Message, Receive, Scope, Send

from service.errors import RequestTooLargeError, UploadTooSlowError
from service.http.credits import Hold
from service.http.deadlines import Deadline

LINGER_S = 2.0  # a client that is still sending must be able to read its refusal
MIB = 2**20
READ_AWAY_BYTES = MIB  # of a refused body: cheaper for both sides than a new connection


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyRules:
    """What a body may be."""

    max_bytes: int
    min_bytes_s: int = 0  # one that comes slower is given up
    patience_s: float = 10.0  # seconds of waiting before that counts

    def too_large(self) -> RequestTooLargeError:
        """Make the refusal of a body over the cap."""
        return RequestTooLargeError(
            f"The body has more than {self.max_bytes} bytes ({self.max_bytes / MIB:.3g} MiB); "
            "send fewer or shorter clips, or several requests."
        )


def declared_bytes(scope: Scope) -> int | None:
    """Give the length that the headers announce; None when they leave it open."""
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
        self._given_up = False
        self._lingers = False

    async def send(self, message: Message) -> None:
        """Pass a message on; where the connection must end, see that the answer is read first."""
        if message["type"] == "http.response.start" and not self._complete:
            self._lingers = self._given_up or must_close(self._scope, self.seen_bytes)
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
        rules: What the body may be.
        deadline: When it must be there.
        hold: Credits, made true when the body is complete.
    """

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        rules: BodyRules,
        deadline: Deadline,
        hold: Hold,
    ) -> None:
        super().__init__(scope, receive, send)
        self._rules = rules
        self._deadline = deadline
        self._hold = hold
        self._waited_s = 0.0

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
        if self.seen_bytes > self._rules.max_bytes:
            raise self._rules.too_large()
        if self._complete:
            self._hold.correct(bytes=self.seen_bytes)
        return message

    async def _next(self) -> Message:
        """Wait for a message as long as the slowest upload may take."""
        floor = self._rules.min_bytes_s
        patience_s = max(self._rules.patience_s, self.seen_bytes / floor) if floor else math.inf
        slow_s, late_s = patience_s - self._waited_s, self._deadline.left_s
        begun = time.monotonic()
        try:
            async with asyncio.timeout(max(0.0, min(slow_s, late_s))):
                return await self._outer_receive()
        except TimeoutError:
            self._given_up = True
            if late_s <= slow_s:  # whatever the clock says: a loop's timer may be a little early
                raise self._deadline.passed("receiving") from None
            raise UploadTooSlowError(
                f"The body came slower than {floor} bytes a second; send smaller clips."
            ) from None
        finally:
            self._waited_s += time.monotonic() - begun


def must_close(scope: Scope, seen_bytes: int) -> bool:
    """Tell whether a connection is of no more use after an answer to a body not read to its end.

    The server reads away what is left of a small body; a long one, or a client that waits for
    leave to send, would hold the connection.
    """
    declared = declared_bytes(scope)
    long = declared is None or declared - seen_bytes > READ_AWAY_BYTES
    return long or "expect" in Headers(scope=scope)
