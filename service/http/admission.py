"""Who gets in: deadline and credits of a request, settled before its body is read; pure ASGI.

A refusal takes no body, no thread and no wait, so that it is fast when the server is full.
"""

import ipaddress
import math
import random
import re
from collections.abc import Callable
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import RequestError, ServerFullError, TenantOverShareError
from service.http import problems as errors
from service.http.credits import Cost, Ledger
from service.http.deadlines import HEADER, Deadline, read_timeout
from service.http.receiving import BodyRules, CountedBody, UnreadBody, declared_bytes
from service.http.tickets import Ticket

UNPRICED = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})  # they have no body that is read
REGISTER = re.compile(r"(?:/v1)?/tasks")
CLASSIFY = re.compile(r"(?:/v1)?/tasks/[^/]+/classify")
QUEUE_PART = 0.5  # of the time left that earlier work may take: estimates are rough
RETRY_S = (1.0, 30.0)
JITTER = (0.8, 1.2)  # clients refused together must not come back together


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast the service works, as measured lately."""

    frames_s: float  # of the device; 0 while unknown
    frames_clip: int
    decoders: int
    clip_bytes: float
    decode_s_byte: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionRules:
    """What a request may be and how long it may take."""

    body: BodyRules
    deadline_s: float  # where the client says nothing
    max_deadline_s: float  # the same for registrations, and the cap
    query_clips: int
    support_clips: int


class Admission:
    """Gives each request that brings work a ticket, or refuses it.

    Args:
        app: The application inside.
        ledger: The credits.
        rules: What a request may be.
        pace: How fast the service works now.
    """

    def __init__(
        self, app: ASGIApp, *, ledger: Ledger, rules: AdmissionRules, pace: Callable[[], Pace]
    ) -> None:
        self.app = app
        self.ledger = ledger
        self.rules = rules
        self.pace = pace

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["method"] in UNPRICED:
            await self.app(scope, receive, send)
            return
        try:
            ticket = self._admit(scope)
        except RequestError as error:
            response = errors.refusal(error, scope)
            await response(scope, receive, UnreadBody(scope, receive, send).send)
            return
        with ticket.hold:
            scope["kshot.ticket"] = ticket
            body = CountedBody(
                scope,
                receive,
                send,
                rules=self.rules.body,
                deadline=ticket.deadline,
                hold=ticket.hold,
            )
            try:
                await self.app(scope, body.receive, body.send)
            finally:
                scope["kshot.body_bytes"] = body.seen_bytes

    def _admit(self, scope: Scope) -> Ticket:
        """Settle the deadline and take the credits.

        Raises:
            RequestError: The deadline cannot be read, the body is too large, or there is no room.
        """
        rules, declared = self.rules, declared_bytes(scope)
        if declared is not None and declared > rules.body.max_bytes:
            raise rules.body.too_large()
        registers = REGISTER.fullmatch(scope["path"]) is not None
        default_s = rules.max_deadline_s if registers else rules.deadline_s
        given = Headers(scope=scope).getlist(HEADER)
        deadline = Deadline.after(read_timeout(given, default_s, rules.max_deadline_s))
        tenant, pace = tenant_of(scope), self.pace()
        room = self._room(deadline.left_s, pace)
        try:
            hold = self.ledger.take(tenant, self._estimate(scope, declared, pace), room)
        except TenantOverShareError as error:
            error.retry_after_s = _retry_after_s(self.ledger.held_by(tenant), pace)
            raise
        except ServerFullError as error:
            error.retry_after_s = _retry_after_s(self.ledger.held, pace)
            raise
        return Ticket(tenant, deadline, hold)

    def _estimate(self, scope: Scope, declared: int | None, pace: Pace) -> Cost:
        """Guess what a request costs, by its route and the length of its body."""
        size = self.rules.body.max_bytes if declared is None else declared
        if REGISTER.fullmatch(scope["path"]):
            least, most = 2, self.rules.support_clips
        elif CLASSIFY.fullmatch(scope["path"]):
            least, most = 1, self.rules.query_clips
        else:
            return Cost(bytes=size)
        told = least * pace.clip_bytes if declared is None else declared
        clips = min(max(least, math.ceil(told / pace.clip_bytes)), most)
        return Cost(
            bytes=size,
            decode_ms=math.ceil(1e3 * told * pace.decode_s_byte),
            frames=clips * pace.frames_clip,
        )

    def _room(self, left_s: float, pace: Pace) -> Cost:
        """Tell what may be held so that a new request is done in the time it has."""
        most, wait_s = self.ledger.most, QUEUE_PART * left_s
        frames = math.floor(wait_s * pace.frames_s) if pace.frames_s > 0 else most.frames
        decode_ms = math.floor(1e3 * wait_s * pace.decoders)
        return Cost(bytes=most.bytes, decode_ms=decode_ms, frames=frames)


def tenant_of(scope: Scope) -> str:
    """Tell whose request it is: an address, or the /64 network of one, which one host can fill."""
    host = (scope.get("client") or ("",))[0]
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return str(host)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


def _retry_after_s(held: Cost, pace: Pace) -> float:
    """Tell when the work held will have drained, at the pace measured."""
    device_s = held.frames / pace.frames_s if pace.frames_s > 0 else 0.0
    decoding_s = held.decode_ms / 1e3 / max(1, pace.decoders)
    least, most = RETRY_S
    jitter = random.uniform(*JITTER)
    return min(most, max(least, jitter * max(device_s, decoding_s)))
