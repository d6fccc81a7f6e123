"""Who gets in: deadline and credits of a request, settled before its body is read; pure ASGI.

A refusal reads no body, takes no thread and does not wait, so it is fast when the server is full.
"""

import ipaddress
import math
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from model.errors import KshotError
from service.container import Service
from service.decoding.turns import WorkClass
from service.engine.queue import QUERY_PART
from service.errors import (
    FieldFault,
    InvalidRequestError,
    ServerFullError,
    TenantOverShareError,
)
from service.http.access.guard import CALLER, identify
from service.http.connection import CountedBody, UnreadBody, declared_bytes, too_large
from service.http.head import headless
from service.http.problems import TIMEOUT_HEADER, refusal
from service.http.quota.headers import telling
from service.keys.key import Caller
from service.keys.ring import KeyRing
from service.limits import Limits
from service.logs import hashed, note
from service.tasks.allowance import Allowance, Cost, Deadline, Ledger
from service.tasks.quota.keeper import Keeper

MOST_DIGITS = 9
UNPRICED = frozenset({"GET", "HEAD", "OPTIONS"})  # they have no body that is read
REGISTER = re.compile(r"(?:/v1)?/tasks(?:/import)?")
GROW = re.compile(r"(?:POST|PUT) (?:/v1)?/tasks/[^/]+/labels/(?!.*/descriptions$).*", re.DOTALL)
CLASSIFY = re.compile(r"(?:/v1)?/tasks/[^/]+/classify")
TIMELINE = re.compile(r"(?:/v1)?/tasks/[^/]+/timeline")
QUEUE_PART = 0.5  # of the time left that earlier work may take: estimates are rough
RETRY_S = (1.0, 30.0)
JITTER = (0.8, 1.2)  # clients refused together must not come back together


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast the service works, as measured lately."""

    frames_s: float  # of the device, over all of its work; 0 while unknown
    query_frames_s: float  # likewise, over classification alone
    frames_clip: int
    decoders: int
    clip_bytes: float
    decode_s_byte: float


def pace_of(scope: Scope) -> Pace:
    """Ask the service that a request came to."""
    service = scope["app"].state.service
    assert isinstance(service, Service)
    return Pace(
        frames_s=service.engine.drain_rate,
        query_frames_s=service.engine.query_rate,
        frames_clip=service.engine.model.frames,
        decoders=service.pool.workers,
        clip_bytes=service.pool.pace.clip_bytes,
        decode_s_byte=service.pool.pace.s_byte,
    )


def keys_of(scope: Scope) -> KeyRing | None:
    """Return the keys of the service that a request came to; None lets everybody in."""
    service = scope["app"].state.service
    assert isinstance(service, Service)
    return service.ground.ring


def keeper_of(scope: Scope) -> Keeper | None:
    """Return what charges requests to the service; None where nobody has a quota."""
    service = scope["app"].state.service
    assert isinstance(service, Service)
    return service.keeper if service.keeper.on else None


class Admission:
    """Lets in who has a key, where there are any, and gives work its allowance, or refuses it.

    Args:
        app: The application inside.
        ledger: The credits.
        limits: What a request may be.
        pace: How fast the service works now.
        ring: The keys.
        keeper: What charges requests.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        ledger: Ledger,
        limits: Limits,
        pace: Callable[[Scope], Pace] = pace_of,
        ring: Callable[[Scope], KeyRing | None] = keys_of,
        keeper: Callable[[Scope], Keeper | None] = keeper_of,
    ) -> None:
        self.app = app
        self.ledger = ledger
        self.limits = limits
        self.pace = pace
        self.ring = ring
        self.keeper = keeper

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            if (ring := self.ring(scope)) is not None:
                await identify(ring, scope, address_of(scope))
                if isinstance(caller := scope.get(CALLER), Caller):
                    note(tenant=hashed(caller.tenant))
            allowance = None if scope["method"] in UNPRICED else self._admit(scope)
        except KshotError as error:
            response = refusal(error, scope)
            await response(scope, receive, UnreadBody(scope, receive, send).send)
            return
        if scope["method"] == "HEAD":
            await headless(self.app, scope, receive, send)
            return
        if allowance is None:
            await self.app(scope, receive, send)
            return
        with allowance.credits:
            scope["kshot.allowance"] = allowance
            body = CountedBody(scope, receive, send, limits=self.limits, allowance=allowance)
            purse = allowance.purse
            try:
                told: Send = body.send
                if purse is not None:
                    told = telling(purse, scope, body.send)
                await self.app(scope, body.receive, told)
            finally:
                scope["kshot.body_bytes"] = body.seen_bytes
                scope["kshot.receive_s"] = body.waited_s

    def _admit(self, scope: Scope) -> Allowance:
        """Settle the deadline and take the credits.

        Raises:
            RequestError: The deadline cannot be read, the body is too large, or there is no room.
        """
        limits, declared = self.limits, declared_bytes(scope)
        if declared is not None and declared > limits.request_bytes:
            raise too_large(limits)
        registers, follows = _brings_supports(scope), TIMELINE.fullmatch(scope["path"]) is not None
        most_s = limits.timeline_deadline_s if follows else limits.max_deadline_s
        default_s = most_s if registers or follows else limits.deadline_s
        values = Headers(scope=scope).getlist(TIMEOUT_HEADER)
        allowed_s = read_timeout(values, default_s, most_s)
        deadline = Deadline.after(allowed_s)
        tenant, pace = tenant_of(scope), self.pace(scope)
        # a long video holds up nobody's clips, so that it is counted as what waits for them
        work: WorkClass = "register" if registers or follows else "classify"
        room = self._room(deadline.left_s, pace, work)
        try:
            credits = self.ledger.take(tenant, self._estimate(scope, declared, pace), room, work)
        except TenantOverShareError as error:
            error.retry_after_s = _retry_after_s(self.ledger.held_by(tenant, work), pace, work)
            raise
        except ServerFullError as error:
            error.retry_after_s = _retry_after_s(self.ledger.ahead_of(work), pace, work)
            raise
        caller = scope.get(CALLER)
        owner = caller.owner if isinstance(caller, Caller) else ""
        keeper = self.keeper(scope)
        hurried = allowed_s < min(default_s, most_s)
        purse = None if keeper is None else keeper.purse(owner, hurried=hurried)
        return Allowance(tenant, deadline, credits, owner, purse=purse)

    def _estimate(self, scope: Scope, declared: int | None, pace: Pace) -> Cost:
        """Guess what a request costs, by its route and the length of its body."""
        size = self.limits.request_bytes if declared is None else declared
        if _brings_supports(scope):
            least = 2 if REGISTER.fullmatch(scope["path"]) else 1
            most = self.limits.support_clips
        elif CLASSIFY.fullmatch(scope["path"]):
            least, most = 1, self.limits.query_clips
        else:
            return Cost(bytes=size)
        likely = least * pace.clip_bytes if declared is None else declared
        clips = min(max(least, math.ceil(likely / pace.clip_bytes)), most)
        return Cost(
            bytes=size,
            decode_ms=math.ceil(1e3 * likely * pace.decode_s_byte),
            frames=clips * pace.frames_clip,
        )

    def _room(self, left_s: float, pace: Pace, work: WorkClass) -> Cost:
        """Tell what may be ahead of a new request so that it is done in the time it has."""
        most, wait_s = self.ledger.most, QUEUE_PART * left_s
        frames_s = _frames_s(pace, work)
        if work == "classify" and self.ledger.held != self.ledger.ahead_of(work):
            frames_s *= QUERY_PART  # the rest goes to the registrations that wait
        frames = math.floor(wait_s * frames_s) if frames_s > 0 else most.frames
        decode_ms = math.floor(1e3 * wait_s * pace.decoders)
        return Cost(bytes=most.bytes, decode_ms=decode_ms, frames=frames)


def _brings_supports(scope: Scope) -> bool:
    """Tell whether a request brings support clips: a new task, or a change that makes it grow."""
    asked = f"{scope['method']} {scope['path']}"
    return REGISTER.fullmatch(scope["path"]) is not None or GROW.fullmatch(asked) is not None


def tenant_of(scope: Scope) -> str:
    """Tell whose request it is: of the tenant of its key, else of an address."""
    caller = scope.get(CALLER)
    return f"tenant {caller.tenant}" if isinstance(caller, Caller) else address_of(scope)


def address_of(scope: Scope) -> str:
    """Tell where a request comes from: an address, or its /64 network, which one host can fill."""
    host = (scope.get("client") or ("",))[0]
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return str(host)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


def _frames_s(pace: Pace, work: WorkClass) -> float:
    """Return the frames a second of what goes before a request of a class."""
    return (work == "classify" and pace.query_frames_s) or pace.frames_s


def _retry_after_s(ahead: Cost, pace: Pace, work: WorkClass) -> float:
    """Tell when the work ahead will have drained, at the pace measured."""
    frames_s = _frames_s(pace, work)
    device_s = ahead.frames / frames_s if frames_s > 0 else 0.0
    decoding_s = ahead.decode_ms / 1e3 / max(1, pace.decoders)
    least, most = RETRY_S
    jitter = random.uniform(*JITTER)
    return min(most, max(least, jitter * max(device_s, decoding_s)))


def read_timeout(values: Sequence[str], default_s: float, most_s: float) -> float:
    """Read the seconds that a client allows its request.

    Args:
        values: The header, as often as it was sent.
        default_s: Where there is none.
        most_s: Cap; more is cut to it.

    Raises:
        InvalidRequestError: It is no positive whole number of milliseconds.
    """
    if not values:
        return min(default_s, most_s)
    text = values[0].strip()
    digits = text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS
    if len(values) > 1 or not digits or int(text) == 0:
        shown = ", ".join(values)[:40]
        raise InvalidRequestError(
            f"{TIMEOUT_HEADER} is {shown!r}; give one positive whole number of milliseconds, "
            f"such as {round(1e3 * default_s)}.",
            [FieldFault(TIMEOUT_HEADER, "not a positive whole number of milliseconds")],
        )
    return min(int(text) / 1e3, most_s)
